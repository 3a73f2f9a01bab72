"""Makes a TUF repository as Sigstore's are: trusted_root.json, and signing_config.v0.2.json where it is given.

usage: repository.py DIR TRUSTED_ROOT [--config SIGNING_CONFIG] [--version N] [--days N] [--rotate]

The key stays in DIR.key, so that a second run publishes what follows. --days is how long the timestamp lives, which may
be negative; --rotate publishes the next root besides.
"""

import argparse
import datetime
import hashlib
import pathlib

from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

parser = argparse.ArgumentParser()
parser.add_argument("dir", type=pathlib.Path)
parser.add_argument("trusted_root", type=pathlib.Path)
parser.add_argument("--config", type=pathlib.Path)
parser.add_argument("--version", type=int, default=1)
parser.add_argument("--days", type=int, default=7)
parser.add_argument("--rotate", action="store_true")
options = parser.parse_args()

options.dir.mkdir(parents=True, exist_ok=True)
kept = options.dir.with_suffix(".key")
if kept.exists():
    private = serialization.load_pem_private_key(kept.read_bytes(), None)
    signer = CryptoSigner(private)
else:
    signer = CryptoSigner.generate_ecdsa()
    kept.write_bytes(signer.private_bytes)

now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def later(days):
    return now + datetime.timedelta(days=days)


def write(name, signed):
    metadata = Metadata(signed)
    metadata.sign(signer)
    (options.dir / name).write_bytes(metadata.to_bytes(JSONSerializer(compact=True)))


def root(version):
    signed = Root(version=version, expires=later(365), consistent_snapshot=True)
    for role in ["root", "timestamp", "snapshot", "targets"]:
        signed.add_key(signer.public_key, role)
    write(f"{version}.root.json", signed)


if not (options.dir / "1.root.json").exists():
    root(1)
if options.rotate:
    root(2)

targets = Targets(version=options.version, expires=later(365))
files = {"trusted_root.json": options.trusted_root}
if options.config:
    files["signing_config.v0.2.json"] = options.config
(options.dir / "targets").mkdir(exist_ok=True)
for name, path in files.items():
    content = path.read_bytes()
    targets.targets[name] = TargetFile.from_data(name, content, ["sha256"])
    (options.dir / "targets" / f"{hashlib.sha256(content).hexdigest()}.{name}").write_bytes(content)
write(f"{options.version}.targets.json", targets)
snapshot = Snapshot(version=options.version, expires=later(365), meta={"targets.json": MetaFile(options.version)})
write(f"{options.version}.snapshot.json", snapshot)
write("timestamp.json", Timestamp(version=options.version, expires=later(options.days), snapshot_meta=MetaFile(options.version)))
