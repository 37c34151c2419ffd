"""Finds the rows of a job: files, columns, formats, folders of images and ids, cut into units."""
