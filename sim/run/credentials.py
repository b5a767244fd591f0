"""A certificate authority made on the spot, and the keys by which a SuperLink knows its SuperNodes.

For demonstrations and closed networks. The authority's own key is never written: whoever needs a
further certificate makes a new authority.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from storage import atomic

VALID = timedelta(days=30)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a server's identity.

    Attributes:
        ca: Certificate of the authority; every party needs it.
        certificate: The server's certificate.
        key: The server's private key; only the server needs it.
    """

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class NodeKey:
    """Files of a SuperNode's key pair in OpenSSH form.

    Attributes:
        private: Stays on the device.
        public: Registered with the SuperLink.
    """

    private: Path
    public: Path


def make_tls(folder: Path, host: str = LOOPBACK) -> Tls:
    """Make an authority and a certificate for the server at the IP address ``host``."""
    ca_key, key = _new_key(), _new_key()
    ca_name, name = _name("cdcda-sim authority"), _name(host)
    ca = _certificate(ca_name, ca_name, ca_key.public_key(), authority=True).sign(
        ca_key, hashes.SHA384()
    )
    certificate = (
        _certificate(name, ca_name, key.public_key(), authority=False)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ip_address(host)), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA384())
    )
    tls = Tls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    pem = serialization.Encoding.PEM
    atomic.write_bytes(tls.ca, ca.public_bytes(pem))
    atomic.write_bytes(tls.certificate, certificate.public_bytes(pem))
    _write_private(
        tls.key,
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    return tls


def make_node_key(folder: Path) -> NodeKey:
    """Make a key pair (curve P-384) for one SuperNode."""
    key = _new_key()
    made = NodeKey(folder / "node.key", folder / "node.pub")
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    _write_private(made.private, private)
    atomic.write_bytes(made.public, public)
    return made


def make_signing_key(folder: Path) -> tuple[Path, str]:
    """Make the key with which an operator signs base models.

    Returns:
        The file of the private key, and the public key as devices' policies name it.
    """
    key = Ed25519PrivateKey.generate()
    path = folder / "signing.key"
    _write_private(
        path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    return path, key.public_key().public_bytes_raw().hex()


def _certificate(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_usage(authority), critical=True)
    )


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _write_private(path: Path, content: bytes) -> None:
    atomic.make_folder(path.parent, private=True)
    atomic.write_bytes(path, content)
