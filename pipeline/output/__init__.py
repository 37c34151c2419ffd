"""Keeps the books of one output folder: layout, claims, receipts, recovery, heartbeat, reconciliation.

The commit protocol
===================
What a reader may trust: every file in `data/` and `rejected/` is part of a committed unit that still counts, and is
there once and whole. (Images beside the Parquet: likewise.) A unit is done when its receipt exists.

Names are written once
----------------------
A commit is called by its unit and a revision (`records.Revision`): the epoch since which the unit's rows count, and
the number of commits since then. Receipts, parts and images carry it in their names, so no two commits share one.

    _unipic/run.json             put if absent     whose folder this is: of two jobs that begin at once, one is refused
    _unipic/epochs/<n>.json      put if absent     the manifest as recorded; a redo, prune or repair is the next number
    _unipic/staging/<attempt>/…  own names         each attempt has a folder that no other attempt writes to
    _unipic/receipts/<unit>.json put if absent     THE COMMIT: names the attempt, its parts and their digests
    _unipic/withdrawn/<n>.json   put if absent     a later run looked and found nothing that epochs up to n took back
    _unipic/packs/<id>.json      own names         the receipts of many units, and where their rows are in one file
    data/ rejected/ images/      moved from staging, only by what a receipt names

A unit's way (`stages/commit.py`)
---------------------------------
    1 stage    images, then parts, under the attempt's own names
    2 check    no later epoch took the unit's rows back (one small request)
    3 commit   put the receipt if absent; the first attempt wins, any other deletes what it staged
    4 publish  move the staged files to their names: a rename on disk, a copy inside the store on S3

Writers: workers do 1 to 4. A starting run claims (`claims.py`) and finishes what dead runs began (`recovery.py`); it
does the latter again when it ends. Redo, prune and repair open an epoch and then withdraw: they delete what earlier
revisions staged, then what they published.

A compaction (`compaction.py`) merges the data parts of many units into a pack: stage the pack and its record, open the
epoch that names it, then settle (`pack_files.py`): delete the parts and receipts that it replaces, publish it. The
units stay committed as they were; a retry of one is the commit after the packed one.

What a death leaves
-------------------
    before 3            staged files that do not count; the unit is made again; they go once an attempt is committed
    between 3 and 4     a done unit whose files are staged; any run that starts or ends publishes them
    during 4            some files published, some staged; publishing the rest is the same act
    during a withdraw   the epoch counts already; the next runs withdraw again, until one finds nothing left
    during a compaction before its epoch: files that do not count, which the next one deletes; after it: a staged pack
                        that counts, which the next command that writes settles. Rows may be out of sight, never twice

Why no interleaving loses or doubles a row
------------------------------------------
- *Two attempts at one commit*: one receipt wins. The loser's files have other names and are never published, not even
  where their bytes are equal: a retry may have taken rows of that commit back while the loser slept.
- *A repair that makes a unit again* hands its files over to the staging folder of the committed attempt, and publishes
  them from there: what takes that commit back takes them back, too. Where it sets a damaged receipt aside, the name is
  free once more: an attempt from before the damage that wakes before the repair's own commits without its files, which
  the repair deleted. `unipic verify` names that, and another `--repair` makes the unit again.
- *A redo or prune that sleeps* after it looked at the manifest looks once more, after it has read the epoch, and
  refuses where the manifest changed: it takes no newer rows back.
- *A writer that sleeps through a commit* finds the receipt taken at 3.
- *A writer that sleeps through a redo, prune or repair*: if it staged before the withdrawal, its staged files are
  gone, and a later move finds nothing; if it stages after, the check at 2 comes after, too, and sees the new epoch. A
  receipt that it still puts carries the old epoch in its name and counts for nothing. A copy that the store was at
  during the withdrawal is found by the next run: only one that finds nothing left has the withdrawal on record.
- *A publisher that sleeps* holds names that belong to its revision alone; when that was withdrawn, its source
  is gone. It can only do again what was done, or nothing.
- *A retry of rejected rows* is the next revision: its receipt lists the data parts before it and its own. Once that
  receipt is there, the rejected part before is deleted, its staged copy first; then the retry's parts are published.
  No reader sees a row twice; in between, readers do not see the retried rows.
- *A run ends well* only after it has counted all receipts, and then published what they name, whoever put them.
- *A writer that sleeps through a compaction* staged before it, and its staged files are gone; or it stages after, and
  its check sees the new epoch. A receipt that it still puts is of a commit that the pack has, and counts for nothing.
- *Two compactions* open the same epoch: one is refused. A process that knows only earlier epochs leaves later packs
  alone: their names carry their epoch.
- *A cleaner* deletes staged files only of attempts that can no longer be committed: the receipt they would put exists,
  or their epoch is over.

Where a store has no conditional put
------------------------------------
Local disks have hard links, which decide like a conditional put. A disk without links, and an S3 server that ignores
`If-None-Match` (rclone), get a check before the put. One run alone is as safe there as elsewhere. Two runs of one job
that commit one unit in the same moment can leave the receipt of one and a part of the other: `unipic verify` names it,
and `--repair` makes the unit again. Two jobs that claim a new folder announce themselves first, and the first name
wins. `unipic plan` says when a store is weaker so, and a run names the other runs at work.

Cost
----
A unit takes two small requests beside its parts and its receipt: one for the check and one copy inside the store; with
images beside the Parquet, one copy more for each. On S3 a staged copy outlives its publication: a process deletes 64 at
a time, and the end of a run deletes what processes left. `unipic bench requests` counts them. A store without
conditional puts takes one more.
"""
