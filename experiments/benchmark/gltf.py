"""Khronos' gltf-validator (npm), where it is installed: `npm install gltf-validator`, or NODE_PATH to its folder."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Node looks in the working folder and in NODE_PATH; the second try is where `npm install --global` puts things.
_SCRIPT = """
const fs = require('fs'), path = require('path');
const root = path.join(path.dirname(process.execPath), '..', 'lib', 'node_modules');
let validator;
try { validator = require('gltf-validator'); }
catch { try { validator = require(path.join(root, 'gltf-validator')); } catch { process.exit(3); } }
(async () => {
  const found = [];
  for (const file of JSON.parse(fs.readFileSync(0, 'utf8'))) {
    try {
      const report = await validator.validateBytes(new Uint8Array(fs.readFileSync(file)), { maxIssues: 20 });
      const { numErrors, numWarnings, numInfos, numHints, messages } = report.issues;
      found.push({ errors: numErrors, warnings: numWarnings, infos: numInfos, hints: numHints,
                   messages: messages.map(m => `${m.code}: ${m.message}`) });
    } catch (error) { found.push({ errors: 1, warnings: 0, infos: 0, hints: 0, messages: [String(error)] }); }
  }
  process.stdout.write(JSON.stringify({ version: validator.version(), found }));
})();
"""


def validate(paths: Sequence[Path], timeout: float = 300.0) -> tuple[str | None, list[dict[str, object]]]:
    """The validator's version and, for each file, numbers of errors, warnings, infos and hints with the messages.

    (None, []) when node or the validator is not there.
    """
    node = shutil.which("node")
    if node is None or not paths:
        return None, []
    names = json.dumps([str(path.resolve()) for path in paths])
    try:
        done = subprocess.run(
            [node, "-e", _SCRIPT], input=names, capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None, []
    if done.returncode != 0:
        return None, []
    answer = json.loads(done.stdout)
    return str(answer["version"]), answer["found"]
