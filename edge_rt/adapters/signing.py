"""Signed metadata by The Update Framework (python-tuf): how a publisher signs.

Roles, rules and file names are those of the TUF specification (v1.0, with consistent snapshots);
adapters.trust is the device's side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import StorageError as TufStorageError
from securesystemslib.signer import CryptoSigner
from securesystemslib.signer import Signer as Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from edge_rt.core.catalog import CATALOG_NAME, MAX_CATALOG_BYTES
from edge_rt.core.errors import CredentialError, InputError, ManifestError
from edge_rt.core.mirror import MAX_BYTES, MAX_ROOTS, ROLES

# A timestamp is what a broker can hold back and for how long; `fleet refresh` signs it anew, daily.
# The rest is signed at each act of publishing; root only when keys change.
LIFETIMES_DAYS = {"root": 5 * 365, "targets": 365, "snapshot": 365, "timestamp": 30}
MIN_PASSPHRASE = 12

Signers = Callable[[str, Sequence[str], int], Sequence[Signer]]
"""`signers(role, keyids, threshold)`: at least `threshold` of the keys, or a CredentialError."""
_T = TypeVar("_T", Root, Targets, Snapshot, Timestamp)


# ---- keys ----


def make_key(folder: Path, role: str, passphrase: bytes) -> Signer:
    """A new Ed25519 key as an encrypted PKCS#8 file of mode 0600, named by role and key id.

    Raises CredentialError for a passphrase too short to protect it, InputError for an odd disk.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise CredentialError(f"a passphrase of at least {MIN_PASSPHRASE} characters is needed")
    key = Ed25519PrivateKey.generate()
    signer = CryptoSigner(key)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
    path = folder / f"{role}-{signer.public_key.keyid[:12]}.pem"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; free or mend the disk") from None
    return signer


def find_key(folders: Sequence[Path], keyid: str) -> Path | None:
    """The file of a key, if it lies in one of the folders."""
    found = (path for folder in folders for path in folder.glob(f"*-{keyid[:12]}.pem"))
    return next(found, None)


def load_key(path: Path, passphrase: bytes) -> Signer:
    """Raises CredentialError for a wrong passphrase or what is no key."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except OSError as error:
        raise CredentialError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise CredentialError(f"{path}: wrong passphrase, or no encrypted key") from None
    return CryptoSigner(key)


# ---- the publisher ----


class Repository:
    """The signed files of a fleet in a folder, named as they are sent. Each is replaced whole, and
    `timestamp.json` last: what was interrupted was never published.

    Raises InputError when the folder holds no metadata, or metadata of another make.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions: dict[str, int] = {}
        self.expiries: dict[str, datetime] = {}
        self.outrun = False  # elsewhere a timestamp was signed that hides what we have: refresh()
        self._load()

    def _load(self) -> None:
        folder = self.folder
        try:
            newest = max(int(path.name.split(".")[0]) for path in folder.glob("*.root.json"))
            self.root = self._read(f"{newest}.root.json", Root)
            stamp = self._read("timestamp.json", Timestamp).signed
            snapshot = self._read(f"{stamp.snapshot_meta.version}.snapshot.json", Snapshot).signed
            version = snapshot.meta["targets.json"].version
            targets = self._read(f"{version}.targets.json", Targets).signed
            self.catalog_name = targets.targets[CATALOG_NAME].get_prefixed_paths()[0]
            self.catalog = (folder / self.catalog_name).read_bytes()
        except (OSError, ValueError, KeyError, TufStorageError, RepositoryError) as error:
            raise InputError(f"{folder}: no signed metadata ({error}); make it with init") from None

    @staticmethod
    def create(
        folder: Path,
        keys: Mapping[str, Sequence[Signer]],
        thresholds: Mapping[str, int],
        catalog: bytes,
        now: datetime,
    ) -> Repository:
        """Sign everything for the first time. keys, thresholds: by role, all of ROLES."""
        folder.mkdir(parents=True, exist_ok=True)
        root = Root(expires=_expiry("root", now), consistent_snapshot=True)
        for role in ROLES:
            root.roles[role] = Role([], thresholds[role])
            for signer in keys[role]:
                root.add_key(signer.public_key, role)
        made = Metadata(root)
        for signer in keys["root"]:
            made.sign(signer, append=True)
        new = Repository.__new__(Repository)
        new.folder, new.root = folder, made
        new.versions, new.expiries, new.outrun = dict.fromkeys(ROLES, 0), {}, False
        new._write("1.root.json", made)
        new.commit(catalog, lambda role, keyids, threshold: keys[role], now)
        return new

    def files(self) -> dict[str, bytes]:
        """All that a device may need, in the order in which it must be sent."""
        roots = sorted(self.folder.glob("*.root.json"), key=lambda path: int(path.name[:-10]))
        names = [path.name for path in roots[-MAX_ROOTS:]]
        names += [self.catalog_name, self._name("targets"), self._name("snapshot")]
        names.append("timestamp.json")
        return {name: (self.folder / name).read_bytes() for name in names}

    def commit(self, catalog: bytes, signers: Signers, now: datetime) -> None:
        """Sign a catalog; it is the published one from then on."""
        target = TargetFile.from_data(CATALOG_NAME, catalog, ["sha256"])
        name = target.get_prefixed_paths()[0]
        self._write_bytes(name, catalog)
        targets = Targets(self.versions["targets"] + 1, targets={CATALOG_NAME: target})
        self._sign("targets", targets, signers, now)
        self.catalog, self.catalog_name = catalog, name
        meta = {"targets.json": self._meta("targets")}
        snapshot = Snapshot(self.versions["snapshot"] + 1, meta=meta)
        self._sign("snapshot", snapshot, signers, now)
        self.refresh(signers, now)
        self.tidy()

    def refresh(self, signers: Signers, now: datetime) -> None:
        """Sign the timestamp anew: for its lifetime from now on everything stays as it is."""
        version = self.versions["timestamp"] + 1
        stamp = Timestamp(version, snapshot_meta=self._meta("snapshot"))
        self._sign("timestamp", stamp, signers, now)
        self.outrun = False

    def rotate(
        self, role: str, keys: Sequence[Signer], threshold: int, signers: Signers, now: datetime
    ) -> None:
        """Put `keys` in the place of a role's; what the role signs must be signed again after it.

        signers: of the present root keys, which sign the new root beside its own.
        """
        old = self.root.signed
        sign_old = signers("root", old.roles["root"].keyids, old.roles["root"].threshold)
        new: Metadata[Root] = Metadata.from_bytes(_to_bytes(self.root))
        for keyid in list(new.signed.roles[role].keyids):
            new.signed.revoke_key(keyid, role)
        new.signed.roles[role].threshold = threshold
        for signer in keys:
            new.signed.add_key(signer.public_key, role)
        new.signed.version += 1
        new.signed.expires = _expiry("root", now)
        new.signatures.clear()
        by_id = {s.public_key.keyid: s for s in [*sign_old, *(keys if role == "root" else ())]}
        for signer in by_id.values():
            new.sign(signer, append=True)
        self._write(f"{new.signed.version}.root.json", new)
        self.root = new

    def adopt(self, files: Mapping[str, bytes]) -> bool:
        """Take over what our own keys have signed elsewhere since: a timer, another computer.

        files: metadata by name, from wherever; True if there was something newer in it.
        Raises InputError when it claims to be newer and is not signed by our keys, or not whole.
        """
        try:
            stamp = self._foreign(files["timestamp.json"], Timestamp)
            ours = (self.folder / "timestamp.json").read_bytes()
            if stamp.version < self.versions["timestamp"] or files["timestamp.json"] == ours:
                return False
            wanted = {"timestamp.json": files["timestamp.json"]}
            roots = self._newer_roots(files)
            self._verify("timestamp", files["timestamp.json"])
            name = f"{stamp.snapshot_meta.version}.snapshot.json"
            stamp.snapshot_meta.verify_length_and_hashes(files[name])
            snapshot = self._foreign(files[name], Snapshot)
            self._verify("snapshot", files[name])
            if snapshot.version < self.versions["snapshot"]:
                # Only the number counts: for what we have a still newer timestamp must be signed.
                self.versions["timestamp"], self.outrun = stamp.version, True
                return True
            wanted = {name: files[name], **wanted}
            name = f"{snapshot.meta['targets.json'].version}.targets.json"
            snapshot.meta["targets.json"].verify_length_and_hashes(files[name])
            target = self._foreign(files[name], Targets).targets[CATALOG_NAME]
            self._verify("targets", files[name])
            catalog = target.get_prefixed_paths()[0]
            target.verify_length_and_hashes(files[catalog])
            wanted = {**roots, catalog: files[catalog], name: files[name], **wanted}
        except (KeyError, ValueError, TufStorageError, RepositoryError) as error:
            raise InputError(
                f"{self.folder}: the broker holds newer metadata that is not ours "
                f"({type(error).__name__}: {error}); find out who writes there; "
                "`fleet upload --again` overwrites it"
            ) from None
        for name, data in wanted.items():
            self._write_bytes(name, data)
        self._load()
        return True

    def tidy(self) -> None:
        """Remove files that nothing refers to any more."""
        keep = set(self.files())
        for path in self.folder.glob("*.json"):
            if path.name not in keep and not path.name.endswith(".root.json"):
                path.unlink()

    def _foreign(self, data: bytes, kind: type[_T]) -> _T:
        metadata: Metadata[_T] = Metadata.from_bytes(data)
        if not isinstance(metadata.signed, kind):
            raise ValueError(f"{metadata.signed.type} in the place of {kind.type}")
        return metadata.signed

    def _verify(self, role: str, data: bytes) -> None:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
        self.root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)

    def _newer_roots(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """Roots after ours, each signed by the one before and by itself; the last is ours now."""
        found: dict[str, bytes] = {}
        while data := files.get(name := f"{self.root.signed.version + 1}.root.json"):
            self._verify("root", data)
            new: Metadata[Root] = Metadata.from_bytes(data)
            new.signed.verify_delegate("root", new.signed_bytes, new.signatures)
            if new.signed.version != self.root.signed.version + 1:
                raise ValueError(f"{name} has another version in it")
            self.root, found[name] = new, data
        return found

    def _name(self, role: str) -> str:
        return f"{self.versions[role]}.{role}.json" if role != "timestamp" else "timestamp.json"

    def _meta(self, role: str) -> MetaFile:
        data = (self.folder / self._name(role)).read_bytes()
        return MetaFile.from_data(self.versions[role], data, ["sha256"])

    def _sign(self, role: str, signed: _T, signers: Signers, now: datetime) -> None:
        signed.expires = _expiry(role, now)
        metadata: Metadata[_T] = Metadata(signed)
        rules = self.root.signed.roles[role]
        for signer in signers(role, rules.keyids, rules.threshold):
            metadata.sign(signer, append=True)
        # Before it is written: what devices would refuse is never published.
        self.root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        self.versions[role] = signed.version
        self._write(self._name(role), metadata)

    def _read(self, name: str, kind: type[_T]) -> Metadata[_T]:
        metadata: Metadata[_T] = Metadata.from_file(str(self.folder / name))
        if not isinstance(metadata.signed, kind):
            raise ValueError(f"{name} is of another kind")
        self.versions[kind.type] = metadata.signed.version
        self.expiries[kind.type] = metadata.signed.expires
        return metadata

    def _write(self, name: str, metadata: Metadata[Any]) -> None:
        signed = metadata.signed
        self._write_bytes(name, _to_bytes(metadata))
        self.versions[signed.type], self.expiries[signed.type] = signed.version, signed.expires

    def _write_bytes(self, name: str, data: bytes) -> None:
        role = name.split(".")[-2]
        limit = MAX_BYTES.get(role, MAX_CATALOG_BYTES)
        if len(data) > limit:
            raise ManifestError(f"{name}: {len(data)} bytes, devices accept {limit}; sign less")
        path = self.folder / name
        new = path.with_name(name + ".new")
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)


def _expiry(role: str, now: datetime) -> datetime:
    return now.astimezone(UTC).replace(microsecond=0) + timedelta(days=LIFETIMES_DAYS[role])


def _to_bytes(metadata: Metadata[Any]) -> bytes:
    return metadata.to_bytes(JSONSerializer(compact=True))
