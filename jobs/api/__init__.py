"""The functions behind `import unipic`: what the command line does, for Python and notebooks."""
