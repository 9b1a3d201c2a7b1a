"""Which certificates and key of a bundle are the visitor's: found by content, and by name only among several.

What a file is, its content says. Names decide between several files of one kind (cert.pem and server.pem), and only the
names in ROLES do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chalicelib.bundle import errors
from chalicelib.bundle.certificate import Identity, check, load_certificates, matching, pick
from chalicelib.bundle.files import File, shown
from chalicelib.bundle.pem import Block, blocks, is_pem, is_relevant, text_of
from chalicelib.bundle.private_key import load_key
from chalicelib.bundle.sources import is_json, is_prose

CA, CERTIFICATE, KEY, IGNORED = "ca", "certificate", "key", "ignored"

# What a file's name, without extension, says about its PEM blocks. IGNORED's files belong to the server, to the
# CA or to SSH and are never used.
ROLES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ca", "ca-cert", "cacert"), CA),
    **dict.fromkeys(("cert", "user", "client", "client-cert", "user-cert"), CERTIFICATE),
    **dict.fromkeys(("key", "user-key", "client-key"), KEY),
    **dict.fromkeys(("ca-key", "server", "server-cert", "server-key", "id-rsa", "id-ecdsa", "id-ed25519"), IGNORED),
}
_EXTENSION: Final = re.compile(r"\.(pem|crt|cer|cert|key|txt)$")


def role(name: str) -> str | None:
    """Tell what a file's name says about it; None when it says nothing."""
    stem = name.casefold().replace("_", "-")
    while _EXTENSION.search(stem):
        stem = _EXTENSION.sub("", stem)
    return ROLES.get(stem)


@dataclass(frozen=True, slots=True)
class Pems:
    """The PEM blocks of the one folder that holds the client's key, each with its file's role."""

    blocks: tuple[tuple[str | None, Block], ...]

    @classmethod
    def of(cls, files: Sequence[File]) -> Pems:
        """Find the folder and read its PEM files; raises KeyMissing, SeveralBundles, PemDamaged."""
        texts = [(file, text_of(file.data)) for file in files if role(file.name) != IGNORED and _base(file) is not None]
        pems = [file for file, text in texts if is_pem(text) and not is_prose(file) and not is_json(text)]
        bases = sorted({_base(file) or "" for file in pems if role(file.name) != CA and has_key(file)})
        if not bases:
            raise _key_missing()
        if len(bases) > 1:
            raise errors.SeveralBundles(
                f"The archive contains private keys in several folders ({shown(bases[0] or '.')} and "
                f"{shown(bases[1])}). Pack only the folder of the endpoint you want to use"
            )
        chosen = [file for file in pems if _base(file) == bases[0]]
        return cls(tuple((role(file.name), block) for file in chosen for block in blocks(file)))

    def find(self, *roles: str | None, private: bool) -> list[Block]:
        """Give the private keys, or all else, from the files of the first role that has any; each content once."""
        for wanted in roles:
            found = [block for said, block in self.blocks if said == wanted and is_relevant(block, private)]
            if found:
                return list({block.der: block for block in found}.values())
        return []

    def has(self, *roles: str) -> bool:
        """Tell whether files with these roles have certificates in them."""
        return bool(self.find(*roles, private=False))

    def paths(self, ders: set[bytes]) -> set[str]:
        """Give the paths of all files with one of these contents."""
        return {block.path for _, block in self.blocks if block.der in ders}


def _key_missing() -> errors.KeyMissing:
    return errors.KeyMissing(
        "The bundle contains no private key of yours. Add your client certificate's key as key.pem, in PEM form"
    )


def has_key(file: File) -> bool:
    return "PRIVATE KEY-----" in text_of(file.data)


def _base(file: File) -> str | None:
    """Give the folder a file belongs to: Docker's own sub-folder counts as its parent, Kubernetes' as none."""
    folder = f"/{file.folder}"
    if folder.endswith("/tls/kubernetes"):
        return None
    return folder.removesuffix("/tls/docker").strip("/")


def find_identity(pems: Pems, now: float) -> tuple[Identity, set[str]]:
    """Find and check certificate, key and CA; give also the paths of the files they are in."""
    keys = pems.find(KEY, CERTIFICATE, None, private=True)
    if not keys:
        raise _key_missing()
    if len(keys) > 1:
        raise errors.SeveralKeys(
            f"The bundle contains several private keys that could be yours (in {shown(keys[0].path)} and "
            f"{shown(keys[1].path)}). Keep the one that belongs to cert.pem"
        )
    key = load_key(keys[0])
    own = load_certificates(pems.find(CERTIFICATE, KEY, None, private=False))
    if not own:
        raise errors.CertificateMissing(
            "The bundle has a key but no client certificate. Add it as cert.pem, in PEM form "
            "(it begins with “BEGIN CERTIFICATE”)"
        )
    if not pems.has(CERTIFICATE, KEY):
        own = matching(own, key) or own
    leaf, others = pick(own, key)
    cas = load_certificates(pems.find(CA, None, private=False))
    if not pems.has(CA):
        cas = tuple(found for found in cas if found != leaf and found.could_sign)
    if not cas:
        raise errors.CaMissing(
            "The bundle has a key but no certificate of the CA that your endpoint's certificates are from. Add it as "
            "ca.pem, in PEM form"
        )
    identity = check(leaf, key, cas=cas, intermediates=others, now=now)
    return identity, pems.paths({keys[0].der, *(certificate.der for certificate in (*own, *cas))})
