"""Fails if a dependency has a licence that is not on the list, or comes from elsewhere than the registry."""

import json
import subprocess
import sys

ALLOWED = {
    "MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC",
    "CDLA-Permissive-2.0", "Unicode-3.0", "Zlib", "CC0-1.0", "Unlicense", "0BSD", "BSL-1.0", "MIT-0",
}


def allowed(expression):
    """Whether a licence expression can be met with the list: any side of OR, both sides of AND."""
    expression = expression.replace("/", " OR ").replace("(", " ( ").replace(")", " ) ")
    tokens = expression.replace(" WITH ", "_WITH_").split()

    def either():
        result = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            result = both() or result
        return result

    def both():
        result = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            result = one() and result
        return result

    def one():
        token = tokens.pop(0)
        if token == "(":
            result = either()
            tokens.pop(0)
            return result
        return token.replace("_WITH_", " WITH ") in ALLOWED

    return either()


metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--locked", "--format-version=1"]))
bad = []
for package in metadata["packages"]:
    name = f"{package['name']} {package['version']}"
    if not package["license"] or not allowed(package["license"]):
        bad.append(f"{name}: licence {package['license']}")
    if package["source"] and not package["source"].startswith("registry+"):
        bad.append(f"{name}: from {package['source']}")
print(f"{len(metadata['packages'])} packages, {len(bad)} not allowed")
for line in bad:
    print(line)
sys.exit(bool(bad))
