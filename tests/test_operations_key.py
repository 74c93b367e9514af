"""The operations key: made once, read with care, judged by the published test vectors."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_rt.adapters.operations_key import PrivateKey, PublicKey, make_pair
from edge_rt.core.errors import CredentialError, InputError

# RFC 8032, section 7.1: secret, public, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_the_published_vectors(secret: str, public: str, message: str, signature: str) -> None:
    text, given = bytes.fromhex(message), bytes.fromhex(signature)
    private = PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    assert private.sign(text) == given
    key = PublicKey(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    assert key.id == private.public.id and len(key.id) == 32
    assert key.verify(text, given)
    assert not key.verify(text + b"x", given)
    assert not key.verify(text, bytes(64))
    assert not key.verify(text, b"short")


def test_a_pair_is_made_once_and_openssl_understands_it(tmp_path: Path) -> None:
    path = tmp_path / "operations.key"
    public = make_pair(path)
    assert public == tmp_path / "operations.key.pub"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes(), public.read_bytes()
    with pytest.raises(InputError, match="exists"):
        make_pair(path)
    public.unlink()
    with pytest.raises(InputError, match=r"operations\.key exists"):
        make_pair(path)
    assert path.read_bytes() == before[0] and not public.exists()
    public.write_bytes(before[1])
    (tmp_path / "text").write_bytes(b"edge-rt command 1")
    words = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", str(path)]
    words += ["-in", str(tmp_path / "text")]
    made = subprocess.run(words, capture_output=True, timeout=30, check=True).stdout
    assert PublicKey.read(public).verify(b"edge-rt command 1", made)
    assert PrivateKey.read(path).sign(b"edge-rt command 1") == made


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "k"
    public = make_pair(path)
    with pytest.raises(CredentialError, match="no Ed25519 public key"):
        PublicKey.read(path)
    with pytest.raises(CredentialError, match="no Ed25519 private key"):
        public.chmod(0o600)
        PrivateKey.read(public)
    path.chmod(0o640)
    with pytest.raises(CredentialError, match="chmod 600"):
        PrivateKey.read(path)
    with pytest.raises(CredentialError, match=r"nowhere: .*; edge-rt fleet keygen"):
        PublicKey.read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="name another folder"):
        make_pair(tmp_path / "no/where")
