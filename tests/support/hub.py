"""A Hub on this machine: the few endpoints that a push and a download of small files need."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import constants, hf_api


@contextmanager
def local_hub(monkeypatch, cache):
    """Let huggingface_hub ask a Hub on this machine, with an empty cache and without a token."""
    hub = Hub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    try:
        yield hub
    finally:
        hub.close()


class Hub:
    """Repositories as lists of commits, each a dict of files; a branch names a commit.

    ``refuse`` makes a part of the paths fail with a status and the Hub's error code.
    """

    def __init__(self):
        self.repos, self.requests, self.refused = {}, [], {}
        self.tokens = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                url = urlsplit(self.path)
                path = unquote(url.path)
                hub.requests.append((self.command, path))
                hub.tokens.add(self.headers.get("Authorization"))
                for part, (status, code) in hub.refused.items():
                    if part in path:
                        return self.send(status, b"{}", {"X-Error-Code": code})
                try:
                    status, content, headers = hub.answer(
                        self.command, path, parse_qs(url.query), body
                    )
                except KeyError as error:
                    code = "RevisionNotFound" if error.args[0] == "revision" else "RepoNotFound"
                    status, content, headers = 404, b"{}", {"X-Error-Code": code}
                return self.send(status, content, headers)

            def send(self, status, content, headers):
                self.send_response(status)
                kind = "application/octet-stream" if "ETag" in headers else "application/json"
                headers = {"Content-Length": str(len(content)), "Content-Type": kind} | headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_HEAD = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def commit(self, repo_id, files, branch="main"):
        """Add a commit of these files to a branch, and return its hash."""
        repo = self.repos.setdefault(repo_id, {"commits": {}, "branches": {}, "messages": []})
        before = repo["commits"].get(repo["branches"].get(branch), {})
        after = {**before, **files}
        number = f"{repo_id} {branch} {len(repo['commits'])}"
        sha = hashlib.sha1(number.encode()).hexdigest()
        repo["commits"][sha], repo["branches"][branch] = after, sha
        return sha

    def files(self, repo_id, branch="main"):
        repo = self.repos[repo_id]
        return repo["commits"][repo["branches"][branch]]

    def _resolve(self, repo_id, revision):
        repo = self.repos[repo_id]
        sha = repo["branches"].get(revision, revision)
        if sha not in repo["commits"]:
            raise KeyError("revision")
        return sha, repo["commits"][sha]

    def answer(self, method, path, query, body):
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            given = json.loads(body)
            repo_id = f"{given['organization'] or 'me'}/{given['name']}"
            url = {"url": f"{self.url}/{repo_id}"}
            if repo_id in self.repos:
                return 409, *as_json(url)[1:]
            self.commit(repo_id, {".gitattributes": b""})
            self.repos[repo_id]["visibility"] = given.get("visibility")
            return as_json(url)
        if path == "/api/validate-yaml":
            return as_json({"errors": [], "warnings": []})
        if parts[0] == "api" and parts[1] != "models":
            return 404, b"{}", {}
        if parts[0] != "api":
            sha, files = self._resolve("/".join(parts[:2]), parts[3])
            name = "/".join(parts[4:])
            if name not in files:
                return 404, b"", {"X-Error-Code": "EntryNotFound"}
            etag = f'"{blob(files[name])}"'
            return 200, files[name], {"X-Repo-Commit": sha, "ETag": etag}
        repo_id, action = "/".join(parts[2:4]), parts[4] if len(parts) > 4 else "revision"
        revision = "/".join(parts[5:]) or "main"
        if action == "revision":
            sha, files = self._resolve(repo_id, revision)
            siblings = [{"rfilename": name} for name in files]
            return as_json({"id": repo_id, "sha": sha, "siblings": siblings})
        if action == "tree":
            _, files = self._resolve(repo_id, revision)
            return as_json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": blob(content)}
                    for name, content in files.items()
                ]
            )
        if action == "branch":
            repo = self.repos[repo_id]
            if revision in repo["branches"]:
                return 409, b"{}", {}
            repo["branches"][revision] = repo["branches"]["main"]
            return as_json({})
        if action == "preupload":
            self._resolve(repo_id, revision)
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            return as_json({"files": modes})
        assert action == "commit" and method == "POST"
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        branch = "refs/pr/1" if query.get("create_pr") else revision
        parent = lines[0]["value"].get("parentCommit")
        if parent is not None and parent != self._resolve(repo_id, revision)[0]:
            return 412, b"{}", {}
        sha = self.commit(repo_id, files, branch)
        self.repos[repo_id]["messages"].append(lines[0]["value"]["summary"])
        answer = {"commitUrl": f"{self.url}/{repo_id}/commit/{sha}", "commitOid": sha}
        return as_json({**answer, "pullRequestUrl": f"{self.url}/{repo_id}/discussions/1"})


def as_json(value):
    return 200, json.dumps(value).encode(), {}


def blob(content):
    """Name of a file's content, as git computes it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
