"""A Hub on loopback: the few routes that a push and a load use, kept in memory.

Large files go through Git LFS as on the Hub; `broken` names the ones whose upload is cut in the
middle, as by a lost connection; `refused` gives a repository's status code in place of an answer.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = (".safetensors", ".parquet")


class LoopbackHub:
    """Repositories by id; each holds `private`, `sha` and `files` (name -> bytes)."""

    def __init__(self):
        self.repos, self.large, self.puts, self.requests = {}, {}, [], []
        self.broken = set()
        self.refused = {}
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def files(self, repo_id):
        return self.repos[repo_id]["files"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, *_):
        pass

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, content, code=200, headers=None):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def do_POST(self):
        path, hub = self.path.split("?")[0], self.hub
        hub.requests.append(("POST", path))
        body = self.body()
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        repo_id = "/".join(path.split("/")[3:5])
        if repo_id in hub.refused:
            return self.answer({"error": "refused"}, hub.refused[repo_id])
        if "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if "/commit/" in path:
            return self.commit(repo_id, [json.loads(line) for line in body.splitlines()])
        return self.answer({"error": path}, 404)

    def create(self, wanted):
        repo_id = "/".join(filter(None, [wanted.get("organization"), wanted["name"]]))
        if repo_id in self.hub.repos:
            return self.answer({"error": "exists", "url": f"{self.hub.url}/{repo_id}"}, 409)
        private = wanted.get("private", False) or wanted.get("visibility") == "private"
        self.hub.repos[repo_id] = {"private": private, "sha": "0" * 40, "files": {}}
        return self.answer({"url": f"{self.hub.url}/{repo_id}", "id": repo_id, "name": repo_id})

    def batch(self, wanted):
        objects = []
        for item in wanted["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.large:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            objects.append(answer)
        self.answer({"transfer": "basic", "objects": objects})

    def do_PUT(self):
        oid = self.path.rsplit("/", 1)[1]
        self.hub.puts.append(oid)
        if oid in self.hub.broken:
            self.rfile.read(min(1000, int(self.headers.get("Content-Length") or 1000)) // 2)
            self.close_connection = True
            self.connection.close()
            return
        content = self.body()
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.large[oid] = content
        self.answer({})

    def commit(self, repo_id, lines):
        repo = self.hub.repos[repo_id]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repo["files"][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo["files"][value["path"]] = self.hub.large[value["oid"]]
        digest = hashlib.sha1(repr(sorted(repo["files"].items())).encode())
        repo["sha"] = digest.hexdigest()
        url = f"{self.hub.url}/{repo_id}/commit/{repo['sha']}"
        self.answer({"success": True, "commitUrl": url, "commitOid": repo["sha"]})

    def do_GET(self):
        path = self.path.split("?")[0]
        self.hub.requests.append((self.command, path))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.info("/".join(parts[2:4]), parts[4:])
        repo, name = self.hub.repos.get("/".join(parts[:2])), "/".join(parts[4:])
        if repo is None:
            return self.answer({"error": "no repo"}, 404, {"X-Error-Code": "RepoNotFound"})
        if name not in repo["files"]:
            return self.answer({"error": "no file"}, 404, {"X-Error-Code": "EntryNotFound"})
        content = repo["files"][name]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self.answer(content, 200, {"ETag": etag, "X-Repo-Commit": repo["sha"]})

    do_HEAD = do_GET

    def info(self, repo_id, rest):
        repo = self.hub.repos.get(repo_id)
        if repo is None:
            return self.answer({"error": "no repo"}, 404, {"X-Error-Code": "RepoNotFound"})
        if rest[:1] == ["tree"]:
            files = [
                {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for n, c in repo["files"].items()
            ]
            return self.answer(files)
        siblings = [{"rfilename": name} for name in repo["files"]]
        known = {"id": repo_id, "modelId": repo_id, "tags": [], "siblings": siblings}
        return self.answer(known | {"sha": repo["sha"], "private": repo["private"]})
