"""Facets of the data sets in OpenLineage events: columns, counts, and other addresses of the same data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from unipic.pipeline.catalog.datasets import DataSet
from unipic.pipeline.code_version import code_version
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.layout import DATA
from unipic.pipeline.stages.parts import REJECTION, data_schema
from unipic.pipeline.storage.paths import is_remote

if TYPE_CHECKING:
    from openlineage.client.generated.schema_dataset import SchemaDatasetFacetFields


def set_producer() -> str:
    """Have every facet and event made from here on name this code; the producer's URI."""
    from openlineage.client.generated import base

    producer = f"urn:unipic-batch:{code_version()}"
    base.set_producer(producer)
    return producer


def input_facets(
    at: DataSet, job: Job | None = None, manifest: Manifest | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(facets, input facets) of a data set that is read; columns and counts where it is the manifest."""
    from openlineage.client.generated.input_statistics_input_dataset import InputStatisticsInputDatasetFacet

    set_producer()
    facets: dict[str, Any] = {"dataSource": _source(at)}
    if manifest is None or job is None:
        return facets, {}
    facets["schema"] = _schema(manifest.schema)
    named = DataSet.at(job.input.manifest)
    if named != at:
        facets["symlinks"] = _symlinks(named)
    size = sum(file.source_bytes for file in manifest.files)
    statistics = InputStatisticsInputDatasetFacet(rowCount=manifest.rows, size=size, fileCount=len(manifest.files))
    return facets, {"inputStatistics": statistics}


def output_facets(job: Job, folder: str, rows: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(facets, output facets) of the data rows or the rejected rows of an output.

    Args:
        rows: that it has now; None where that is not known.
    """
    from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet
    from openlineage.client.generated.storage_dataset import StorageDatasetFacet

    set_producer()
    output = DataSet.at(job.output.uri)
    layer = "s3" if is_remote(job.output.uri) else "file"
    facets: dict[str, Any] = {
        "dataSource": _source(output),
        "schema": _schema(data_schema(job) if folder == DATA else pa.schema([("rejection", REJECTION)])),
        "storage": StorageDatasetFacet(storageLayer=layer, fileFormat="parquet"),
    }
    if folder == DATA:
        facets["symlinks"] = _symlinks(output)  # the folder as `datasets.load_dataset` takes it
    statistics = {} if rows is None else {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=rows)}
    return facets, statistics


def _source(at: DataSet) -> Any:
    from openlineage.client.generated.datasource_dataset import DatasourceDatasetFacet

    return DatasourceDatasetFacet(name=at.namespace, uri=at.uri)


def _symlinks(at: DataSet) -> Any:
    from openlineage.client.generated.symlinks_dataset import Identifier, SymlinksDatasetFacet

    return SymlinksDatasetFacet([Identifier(namespace=at.namespace, name=at.name, type="LOCATION")])


def _schema(schema: pa.Schema) -> Any:
    from openlineage.client.generated.schema_dataset import SchemaDatasetFacet

    return SchemaDatasetFacet(fields=[_field(one) for one in schema])


def _field(field: pa.Field) -> SchemaDatasetFacetFields:
    from openlineage.client.generated.schema_dataset import SchemaDatasetFacetFields

    inside = [_field(one) for one in field.type] if pa.types.is_struct(field.type) else []
    return SchemaDatasetFacetFields(name=field.name, type="struct" if inside else str(field.type), fields=inside)
