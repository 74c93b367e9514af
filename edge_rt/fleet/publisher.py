"""A fleet's publisher: a folder with keys, signed metadata and the bundles that are on offer."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_rt.adapters import signing
from edge_rt.adapters.bundle_files import read_bundle
from edge_rt.adapters.credentials import read_secret
from edge_rt.adapters.unpack import pack
from edge_rt.core.catalog import (
    CHUNK_BYTES,
    MAX_BUNDLE_BYTES,
    ON_OFFER,
    Catalog,
    Release,
    Rollout,
    decode_catalog,
    encode_catalog,
)
from edge_rt.core.config import TopicName
from edge_rt.core.errors import CredentialError, InputError
from edge_rt.core.manifest import Manifest, Struct, version_tuple
from edge_rt.core.mirror import INDEX_NAME, ROLES, Index
from edge_rt.core.toml import write_toml
from edge_rt.core.typed_toml import decode_toml

SETTINGS_NAME, ROOT_NAME = "fleet.toml", "root.json"
KEYS, METADATA, BLOBS = "keys", "metadata", "blobs"
# Opens the timestamp key alone, so that a timer can; see docs/updates.md for what that key can do.
TIMER_PASSPHRASE = "timestamp.passphrase"
Passphrase = Callable[[Path], bytes]
"""`passphrase(path)`: what opens the key in this file."""


class BrokerConfig(Struct, frozen=True):
    """Where to publish, and as whom (`@operator` in the shipped ACL). Files as for the daemon."""

    host: str = "localhost"
    port: int = 8883
    insecure: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""


class FleetConfig(Struct, frozen=True):
    """`fleet.toml` in the publisher's folder."""

    fleet: TopicName = "home"
    broker: BrokerConfig = BrokerConfig()


class KeyPlan(Struct, frozen=True):
    """How many keys a role gets, and how many of them must sign. separate: `snapshot` has a key of
    its own too; else that of `targets` signs both, which are always signed together."""

    root: tuple[int, int] = (1, 1)
    targets: tuple[int, int] = (1, 1)
    separate: bool = False

    def __post_init__(self) -> None:
        for keys, threshold in (self.root, self.targets):
            if not 1 <= threshold <= keys <= 10:
                raise ValueError(f"{threshold} of {keys} keys cannot be; up to 10, all may have to")


def init(
    folder: Path, config: FleetConfig, plan: KeyPlan, passphrase: Passphrase, now: datetime
) -> None:
    """Make a publisher's folder: keys, first metadata, and `root.json` for the devices.

    Raises InputError if there is one already, CredentialError for a passphrase that is too short.
    """
    if (folder / METADATA).exists() or (folder / KEYS).exists():
        raise InputError(f"{folder}: there is a publisher here already; choose a new folder")
    keys = folder / KEYS
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made: dict[str, list[signing.Signer]] = {}
    for role, (count, _) in {"root": plan.root, "targets": plan.targets}.items():
        names = [f"{role}{n + 1}" if count > 1 else role for n in range(count)]
        made[role] = [signing.make_key(keys, n, passphrase(keys / f"{n}.pem")) for n in names]
    if plan.separate:
        made["snapshot"] = [signing.make_key(keys, "snapshot", passphrase(keys / "snapshot.pem"))]
    else:
        made["snapshot"] = made["targets"]
    timer = secrets.token_hex(24)
    made["timestamp"] = [signing.make_key(keys, "timestamp", timer.encode())]
    _write_private(keys / TIMER_PASSPHRASE, f"{timer}\n".encode())
    thresholds = {"root": plan.root[1], "targets": plan.targets[1], "timestamp": 1}
    thresholds["snapshot"] = 1 if plan.separate else plan.targets[1]
    repository = signing.Repository.create(
        folder / METADATA, made, thresholds, encode_catalog(Catalog()), now
    )
    (folder / ROOT_NAME).write_bytes((repository.folder / "1.root.json").read_bytes())
    (folder / SETTINGS_NAME).write_text(write_toml(msgspec.to_builtins(config)), encoding="utf-8")


def describe(manifest: Manifest, blob: bytes, percent: float, chunk_bytes: int) -> Release:
    """What is signed of a bundle that travels as `blob`."""
    parts = [blob[at : at + chunk_bytes] for at in range(0, len(blob), chunk_bytes)]
    return Release(
        name=manifest.name,
        task=manifest.__struct_config__.tag,  # type: ignore[arg-type]
        version=manifest.version,
        sha256=hashlib.sha256(blob).hexdigest(),
        size=len(blob),
        chunk_bytes=chunk_bytes,
        chunks=tuple(hashlib.sha256(part).hexdigest() for part in parts),
        security_epoch=manifest.security_epoch,
        minimum_runtime=manifest.minimum_runtime,
        rollout=Rollout(percent, secrets.token_hex(8)),
    )


class Publisher:
    """Works on the folder; what it signed still has to be sent (fleet.upload).

    keys        folders to look for keys in, besides the folder's own
    Raises InputError from the constructor if there is no publisher in the folder.
    """

    def __init__(
        self,
        folder: Path,
        passphrase: Passphrase,
        keys: Sequence[Path] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        path = folder / SETTINGS_NAME
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path}: {error.strerror}; name the publisher's folder with --in, "
                "or make one with: edge-rt fleet init"
            ) from None
        self.config: FleetConfig = decode_toml(text, FleetConfig, str(path), InputError)
        self.repository = signing.Repository(folder / METADATA)
        self.catalog = decode_catalog(self.repository.catalog)
        self._passphrase = passphrase
        self._keys = (folder / KEYS, *keys)
        self._now = now
        self._fresh: dict[
            str, signing.Signer
        ] = {}  # by key id: made here, with their own passphrase

    # ---- releases ----

    def publish(self, bundle: Path, percent: float, chunk_bytes: int = CHUNK_BYTES) -> Release:
        """Put a bundle on offer. Raises InputError, or what `read_bundle` raises."""
        files = read_bundle(bundle)
        manifest = files.manifest
        blob = pack(bundle, manifest)
        if len(blob) > MAX_BUNDLE_BYTES:
            raise InputError(f"{bundle}: {len(blob)} bytes; devices take {MAX_BUNDLE_BYTES}")
        release = describe(manifest, blob, percent, chunk_bytes)
        self.offer(release, blob)
        return release

    def offer(self, release: Release, blob: bytes) -> None:
        """Sign a release as it is described. Raises InputError if there is one of that version."""
        if any((r.name, r.version) == (release.name, release.version) for r in self._releases):
            raise InputError(f"{release} was published already; give the bundle a new version")
        path = self.blob(release)
        path.parent.mkdir(exist_ok=True)
        _replace(path, blob)
        self._commit((*self._releases, release))

    def roll_out(self, name: str, version: str, percent: float) -> Release:
        """Widen a rollout, or go on with a paused one. Raises InputError for a smaller share."""
        release = self.find(name, version)
        if release.state not in ON_OFFER:
            raise InputError(f"{release} is {release.state}, for good; publish a new version")
        if percent < release.rollout.percent:
            raise InputError(
                f"{release} is out for {release.rollout.percent:g} %; a share only grows "
                "(pause stops it, abort and withdraw take it back)"
            )
        rollout = msgspec.structs.replace(release.rollout, percent=percent)
        return self._change(release, rollout=rollout, state="active")

    def pause(self, name: str, version: str) -> Release:
        """Nobody else takes it; who has it keeps it."""
        release = self.find(name, version)
        if release.state not in ON_OFFER:
            raise InputError(f"{release} is {release.state} already")
        return self._change(release, state="paused")

    def abort(self, name: str, version: str) -> Release:
        """Who has it on trial goes back to the model before."""
        release = self.find(name, version)
        if release.state == "withdrawn":
            raise InputError(f"{release} is withdrawn already")
        return self._change(release, state="aborted", chunks=())

    def withdraw(self, name: str, version: str) -> Release:
        """Who has it at all goes back to the model before."""
        return self._change(self.find(name, version), state="withdrawn", chunks=())

    def forget(self, name: str, version: str) -> Release:
        """Strike it from the catalog; who has it keeps it, and hears of it no more."""
        release = self.find(name, version)
        self._commit([r for r in self._releases if r is not release])
        return release

    def find(self, name: str, version: str) -> Release:
        """Raises InputError if it is not in the catalog."""
        for release in self._releases:
            if (release.name, release.version) == (name, version):
                return release
        known = ", ".join(map(str, self._releases)) or "none"
        raise InputError(f"{name} {version} is not in the catalog; there are: {known}")

    # ---- signing ----

    def refresh(self, *, everything: bool = False) -> None:
        """Sign the timestamp anew; `everything`: catalog and snapshot too."""
        if everything:
            self._commit(self._releases)
        else:
            self.repository.refresh(self._signers, self._now())

    def rotate(self, role: str, passphrase: Passphrase) -> list[Path]:
        """New keys in the place of a role's; the files of the old ones, which are of no more use.

        Everything that the role signs is signed again. Raises CredentialError when the present
        root keys are not at hand.
        """
        root = self.repository.root.signed
        old, threshold = list(root.roles[role].keyids), root.roles[role].threshold
        shared = [r for r in ROLES if r != role and set(root.roles[r].keyids) & set(old)]
        names = [f"{role}{n + 1}" if len(old) > 1 else role for n in range(len(old))]
        folder = self.folder / KEYS
        if role == "timestamp":
            timer = secrets.token_hex(24)
            made = [signing.make_key(folder, name, timer.encode()) for name in names]
        else:
            made = [signing.make_key(folder, n, passphrase(folder / f"{n}.pem")) for n in names]
        self._fresh |= {signer.public_key.keyid: signer for signer in made}
        for each in (role, *shared):
            self.repository.rotate(each, made, threshold, self._signers, self._now())
        if role == "timestamp":
            _replace(folder / TIMER_PASSPHRASE, f"{timer}\n".encode())
            self.refresh()
        elif role != "root":
            self.refresh(everything=True)
        _replace(self.folder / ROOT_NAME, self.repository.files()[self.newest_root])
        found = [signing.find_key(self._keys, keyid) for keyid in old]
        return [path for path in found if path is not None]

    @property
    def newest_root(self) -> str:
        """The file name of the root in force."""
        return f"{self.repository.versions['root']}.root.json"

    def ending(self, days: float) -> Mapping[str, datetime]:
        """Roles whose signature ends within so many days."""
        now = self._now()
        every = self.repository.expiries.items()
        return {role: end for role, end in every if (end - now).total_seconds() < days * 86400}

    def catch_up(self, metadata: Mapping[str, bytes]) -> bool:
        """Go on from what the same keys have signed elsewhere; whether there was any. See
        Repository.adopt."""
        newer = self.repository.adopt(metadata)
        self.catalog = decode_catalog(self.repository.catalog)
        return newer

    # ---- what is to be sent ----

    def blob(self, release: Release) -> Path:
        """The zip of a release."""
        return self.folder / BLOBS / f"{release.sha256}.zip"

    def metadata(self) -> dict[str, bytes]:
        """Metadata by name, in the order in which it must be sent: the index, which names what
        follows, after all that it names, and the timestamp, which makes it count, at the end."""
        files = self.repository.files()
        index = Index({name: len(data) for name, data in files.items()})
        stamp = files.pop("timestamp.json")
        return {**files, INDEX_NAME: msgspec.json.encode(index), "timestamp.json": stamp}

    def on_offer(self) -> list[Release]:
        """Releases whose chunks must be on the broker."""
        return [release for release in self._releases if release.state in ON_OFFER]

    # ---- helpers ----

    @property
    def _releases(self) -> tuple[Release, ...]:
        return self.catalog.releases

    def _change(self, release: Release, **changes: object) -> Release:
        changed = msgspec.structs.replace(release, **changes)
        self._commit([changed if r is release else r for r in self._releases])
        return changed

    def _commit(self, releases: Sequence[Release]) -> None:
        ordered = sorted(releases, key=lambda r: (r.task, r.name, version_tuple(r.version)))
        catalog = Catalog(releases=tuple(ordered))
        self.repository.commit(encode_catalog(catalog), self._signers, self._now())
        self.catalog = catalog
        keep = {self.blob(release) for release in self.on_offer()}
        for path in (self.folder / BLOBS).glob("*.zip"):
            if path not in keep:
                path.unlink()

    def _signers(self, role: str, keyids: Sequence[str], threshold: int) -> list[signing.Signer]:
        if fresh := [self._fresh[keyid] for keyid in keyids if keyid in self._fresh]:
            return fresh[:threshold]  # all of a role's keys are made together
        found = [signing.find_key(self._keys, keyid) for keyid in keyids]
        paths = [path for path in found if path is not None]
        if len(paths) < threshold:
            raise CredentialError(
                f"{role}: {threshold} of its keys must sign, {len(paths)} are here; name the "
                "folder of the others with --keys"
            )
        return [signing.load_key(path, self._opens(role, path)) for path in paths[:threshold]]

    def _opens(self, role: str, path: Path) -> bytes:
        timer = path.parent / TIMER_PASSPHRASE
        if role == "timestamp" and timer.exists():
            return read_secret(str(timer.absolute()))
        return self._passphrase(path)


def _write_private(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # a lost passphrase is a lost key


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    _write_private(new, data)
    os.replace(new, path)
