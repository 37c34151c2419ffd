"""`unipic seal`."""

from __future__ import annotations

import typer

from unipic.jobs.terminal.formatting import as_json, count
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, storage_from_options


def seal_output(
    output: OutputUri,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Seal a finished output with one digest.

    Writes _unipic/seal.json and prints the digest: the root of a Merkle tree (RFC 6962, SHA-256) over run.json, the
    epochs and all receipts, which hold the digests of the parts. Keep it elsewhere, or give it to someone:
    `unipic verify OUTPUT --seal DIGEST` then shows that nothing changed since. Parts are not read; run `unipic verify`
    first. A later run that adds to the output makes the seal outdated.

    \b
    Examples:
      unipic seal demo-output/pictures
      unipic seal demo-output/pictures --json
    """
    from unipic.pipeline.output.ledger import Ledger
    from unipic.pipeline.output.seal import seal

    storage = storage_from_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    made = seal(Ledger(output, storage))
    if json:
        typer.echo(as_json(made))
        return
    say(f"{output}: sealed with {count(made.receipts, 'receipt')}")
    say(made.digest)
