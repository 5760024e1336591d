r"""Data keys of scopes: one small file a scope beside the unit's files, wrapped by the unit's key.

They lie outside the database, so that a copy of the database alone opens no payload. A destroyed key leaves a
tombstone: the scope takes no new payload. A restored copy may bring a key back;
:meth:`gateway.erasures.ErasureService.resume` destroys it again before anything is served.

File: ``ASSAYSCOPE1\n``, 12-byte nonce and 48 bytes of wrapped key (AES-256-GCM), bound to unit and scope.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from assay import durable
from assay.errors import IntegrityError, NotFoundError, PreconditionError
from gateway.store.blobs import FileBlobStore, create_durably

_MAGIC = b"ASSAYSCOPE1\n"
_NONCE = 12
_SIZE = len(_MAGIC) + _NONCE + 48
_TOMBSTONE = b"ASSAYSCOPE1 destroyed\n"


class FileScopeKeys:
    """The :class:`audit.ledger.payloads.ScopeKeys` of an installation with local files."""

    def __init__(self, blobs: FileBlobStore) -> None:
        self._blobs = blobs

    def create(self, unit: str, scope: str) -> bytes:
        """See :class:`audit.ledger.payloads.ScopeKeys`."""
        path = self._path(unit, scope)
        if not path.exists():
            key, nonce = AESGCM.generate_key(256), secrets.token_bytes(_NONCE)
            wrapped = AESGCM(self._blobs.unit_keys(unit).kek).encrypt(nonce, key, _context(unit, scope))
            create_durably(path, self._blobs.scratch_file(), _MAGIC + nonce + wrapped)
        if path.read_bytes() == _TOMBSTONE:
            raise PreconditionError("SCOPE_ERASED", f"{scope} was erased and takes nothing new")
        return self.get(unit, scope)

    def get(self, unit: str, scope: str) -> bytes:
        """See :class:`audit.ledger.payloads.ScopeKeys`."""
        try:
            data = self._path(unit, scope).read_bytes()
        except FileNotFoundError:
            data = _TOMBSTONE
        if data == _TOMBSTONE:
            raise NotFoundError("PAYLOAD_ERASED", "the payload is gone; its record and proofs stand")
        nonce, wrapped = data[len(_MAGIC) : len(_MAGIC) + _NONCE], data[len(_MAGIC) + _NONCE :]
        try:
            if len(data) != _SIZE or not data.startswith(_MAGIC):
                raise InvalidTag
            return AESGCM(self._blobs.unit_keys(unit).kek).decrypt(nonce, wrapped, _context(unit, scope))
        except InvalidTag as error:
            raise IntegrityError(
                "SCOPE_KEY_DAMAGED", "a scope's key was changed or moved", remedy="restore it from a backup"
            ) from error

    def destroy(self, unit: str, scope: str) -> bool:
        """See :class:`audit.ledger.payloads.ScopeKeys`. The key's bytes are overwritten before the file goes."""
        path = self._path(unit, scope)
        try:
            with path.open("r+b") as stream:
                if stream.read() == _TOMBSTONE:
                    return False
                stream.seek(0)
                stream.write(bytes(_SIZE))
                durable.flush(stream)
            path.unlink()
            found = True
        except FileNotFoundError:
            found = False
        create_durably(path, self._blobs.scratch_file(), _TOMBSTONE)
        return found

    def _path(self, unit: str, scope: str) -> Path:
        folder = self._blobs.folder(unit) / "scopes"
        keys = self._blobs.unit_keys(unit, create=True)
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            durable.sync(folder.parent)
        return folder / keys.name(scope)


def _context(unit: str, scope: str) -> bytes:
    return b"assay/scope-key/v1\0" + unit.encode() + b"\0" + scope.encode()
