"""The Merkle tree hash of RFC 6962, section 2.1, with SHA-256."""

from __future__ import annotations

import hashlib

LEAF, NODE = b"\x00", b"\x01"
"""Prefixes of what is hashed: without them a node could be passed off as a leaf."""


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(LEAF + data).digest()


class MerkleTree:
    """A tree that grows leaf by leaf. It holds one hash for each bit of the number of leaves."""

    def __init__(self) -> None:
        self.leaves = 0
        self._complete: list[bytes] = []  # roots of complete subtrees, the largest first

    def add(self, leaf: bytes) -> None:
        """Args: leaf: a `leaf_hash`."""
        self._complete.append(leaf)
        self.leaves += 1
        merges = (self.leaves & -self.leaves).bit_length() - 1  # as many as a binary counter carries
        for _ in range(merges):
            right, left = self._complete.pop(), self._complete.pop()
            self._complete.append(_node(left, right))

    def root(self) -> str:
        """The tree's hash as hex; that of no bytes where there is no leaf."""
        if not self._complete:
            return hashlib.sha256().hexdigest()
        *others, root = self._complete
        for left in reversed(others):
            root = _node(left, root)
        return root.hex()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(NODE + left + right).digest()
