"""What `cargo deny check bans licenses sources` says of `deny.toml`, without having to compile it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def satisfied(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be satisfied with the licences of `allowed`."""
    # An exception only adds rights; older manifests write "/" for "OR".
    text = re.sub(r"\s+WITH\s+\S+", "", expression.replace("/", " OR "))
    words = re.findall(r"\(|\)|[^\s()]+", text)
    operators = {"(": "(", ")": ")", "OR": "or", "AND": "and"}
    return eval(" ".join(operators.get(word) or str(word in allowed) for word in words), {})


def names(entries: list) -> set[str]:
    return {entry if isinstance(entry, str) else entry["crate"] for entry in entries}


def complaints(metadata: dict, config: dict) -> list[str]:
    found = []
    allowed, skipped = set(config["licenses"]["allow"]), names(config["bans"]["skip"])
    versions: dict[str, list[str]] = {}
    for package in metadata["packages"]:
        name, version = package["name"], package["version"]
        versions.setdefault(name, []).append(version)
        if not satisfied(package["license"] or "none", allowed):
            found.append(f"{name} {version}: licence {package['license']}")
        if package["source"] not in (None, REGISTRY):
            found.append(f"{name} {version}: from {package['source']}")
    doubles = {name for name, several in versions.items() if len(several) > 1}
    found += [f"{name}: {', '.join(versions[name])}" for name in sorted(doubles - skipped)]
    found += [f"{name} is skipped, and there is one version" for name in sorted(skipped - doubles)]
    return found


def self_test() -> None:
    """The check bites."""
    allowed = {"MIT", "ISC"}
    for expression, expected in [
        ("MIT", True), ("GPL-3.0", False), ("GPL-3.0 OR MIT", True), ("GPL-3.0/ISC", True),
        ("MIT AND GPL-3.0", False), ("(MIT OR GPL-3.0) AND ISC", True),
        ("MIT WITH LLVM-exception", True), ("none", False),
    ]:
        assert satisfied(expression, allowed) == expected, expression
    package = {"name": "a", "version": "1", "license": "GPL-3.0", "source": "git+https://a"}
    config = {"licenses": {"allow": ["MIT"]}, "bans": {"skip": [{"crate": "b"}]}}
    assert len(complaints({"packages": [package, package]}, config)) == 6


def main() -> int:
    self_test()
    command = ["cargo", "metadata", "--format-version", "1", "--all-features", "--locked"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    config = tomllib.loads(Path("deny.toml").read_text(encoding="utf-8"))
    found = complaints(metadata, config)
    print("\n".join(found) or f"{len(metadata['packages'])} packages are as deny.toml wants them")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
