#!/usr/bin/env bash
# huggingface_hub: a cached model that opens offline by its branch does not open by its commit.
#
# Expected: a pinned commit is the safe way to name a model, and needs the network less than a branch, since there is nothing to resolve.
#   With every file of that commit in the cache, snapshot_download offline returns the cached folder by either name.
# Seen (1.33.0): by branch it returns the folder. By commit it asks the hub for the list of files and raises OfflineModeIsEnabled, unless
#   the cache also holds a listing trees/COMMIT.json. Only snapshot_download writes that listing; a cache that was filled file by file, as
#   transformers' from_pretrained does it, has none. So a job that worked offline stops working when its revision is pinned.
# Versions: huggingface_hub 1.33.0. The hub of this script is a server on 127.0.0.1 with one file; everything else is the library's own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet huggingface_hub==1.33.0

cat >"$folder/server.py" <<'EOF'
"""The part of a hub that a download of one file needs."""
import hashlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT, BODY = "c" * 40, b'{"model_type": "tiny"}'


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        known = self.path in (f"/owner/tiny/resolve/{name}/config.json" for name in ("main", COMMIT))
        self.send_response(200 if known else 404)
        if known:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(BODY).hexdigest()}"')
        self.send_header("Content-Length", str(len(BODY) if known else 0))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(BODY)

    def log_message(self, *args: object) -> None: ...


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
print(server.server_port, flush=True)
server.serve_forever()
EOF

cat >"$folder/online.py" <<'EOF'
from huggingface_hub import hf_hub_download

print("downloaded", hf_hub_download("owner/tiny", "config.json").split("/hub/")[1])
EOF

cat >"$folder/offline.py" <<'EOF'
import os
import sys

import huggingface_hub
from huggingface_hub import snapshot_download

print("python", sys.version.split()[0], "huggingface_hub", huggingface_hub.__version__)


def offline(revision: str) -> str:
    try:
        return "returns a folder with " + ", ".join(os.listdir(snapshot_download("owner/tiny", revision=revision)))
    except Exception as error:
        return f"raises {type(error).__name__}"


seen = {name: offline(name) for name in ("main", "c" * 40)}
for name, answer in seen.items():
    print(f"snapshot_download(revision={name[:8]!r}) offline: {answer}")
expected = ["returns a folder with config.json", "raises OfflineModeIsEnabled"]
sys.exit(0 if list(seen.values()) == expected else "the behaviour has changed")
EOF

export HF_HOME="$folder/home" HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_PROGRESS_BARS=1
coproc SERVER { exec "$folder/venv/bin/python" "$folder/server.py"; }
trap 'kill "$SERVER_PID" 2>/dev/null || true; rm -rf "$folder"' EXIT
read -r port <&"${SERVER[0]}"
NO_PROXY=127.0.0.1 HF_ENDPOINT="http://127.0.0.1:$port" "$folder/venv/bin/python" "$folder/online.py"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/offline.py"
