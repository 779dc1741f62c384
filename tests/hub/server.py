# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""A Hub on loopback: repositories with revisions behind the HTTP routes that `huggingface_hub` calls.

    with HubServer() as hub:
        run(code, HF_ENDPOINT=hub.url, HF_TOKEN=hub.token)

Files above `LFS_SIZE` go by git-LFS: a batch request, a PUT of the bytes, and at download a redirect, as on the Hub.
`hub.cut(method, path, after)` breaks the connection of the next such request once that many bytes of its body have
passed.
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

LFS_SIZE = 50_000
CHUNK = 1 << 14
REPOSITORY = r"(?P<kind>models|datasets)/(?P<name>[\w.-]+/[\w.-]+)"
FILE = r"(?P<kind>datasets/)?(?P<name>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"


@dataclass(frozen=True)
class Blob:
    """The content of a file; `sha256` names it in LFS storage, `oid` is what git calls it."""

    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def is_lfs(self) -> bool:
        return len(self.content) > LFS_SIZE


@dataclass
class Repository:
    """Commits (sha -> path -> blob) and what branches and tags point at."""

    private: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, Blob], title: str) -> str:
        listing = [title, str(len(self.commits)), *(f"{path} {blob.oid}" for path, blob in sorted(files.items()))]
        sha = hashlib.sha1("\n".join(listing).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str:
        return self.branches.get(revision) or self.tags.get(revision) or revision


@dataclass
class Cut:
    """A connection that is to break."""

    method: str
    path: str
    after: int
    reset: bool


class HubError(Exception):
    """An answer other than success: status, the Hub's code for it, and a message."""

    def __init__(self, status: int, code: str | None = None, message: str | None = None):
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


class HubServer:
    """The server, its state, and a log of `(method, path, bytes of the body that passed, Range)`."""

    token = "hf_owner"
    user = "user"

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.storage: dict[str, bytes] = {}
        self.cuts: list[Cut] = []
        self.log: list[tuple[str, str, int, str | None]] = []
        self.lock = threading.Lock()

    def __enter__(self):
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        # A host of its own, as the Hub's: `huggingface_hub` takes the headers of what redirects to another host.
        self.storage_url = self.url.replace("127.0.0.1", "localhost")
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def cut(self, method: str, path: str, after: int, reset: bool = False) -> None:
        self.cuts.append(Cut(method, path, after, reset))

    def add(self, name: str, folder: Path, kind: str = "models", private: bool = False) -> Repository:
        """A repository with the files of a folder, as if somebody had pushed them."""
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        repository = self.repositories[kind, name] = Repository(private)
        repository.commit("main", {name: Blob(path.read_bytes()) for name, path in files.items()}, "Add")
        return repository

    def files(self, name: str, kind: str = "models", revision: str = "main") -> dict[str, bytes]:
        repository = self.repositories[kind, name]
        return {path: blob.content for path, blob in repository.commits[repository.resolve(revision)].items()}

    def requests(self, method: str, path: str) -> list[tuple[str, str, int, str | None]]:
        return [entry for entry in self.log if entry[0] == method and path in entry[1]]


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._dispatch(
            (rf"api/{REPOSITORY}(/revision/(?P<revision>[^/]+))?", self.info),
            (rf"api/{REPOSITORY}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?", self.tree),
            (rf"api/{REPOSITORY}/refs", self.refs),
            (r"api/whoami-v2", self.whoami),
            (FILE, self.resolve),
            (r"lfs/(?P<sha256>\w{64})", self.download),
        )

    do_HEAD = do_GET

    def do_POST(self):
        self._dispatch(
            (r"api/repos/create", self.create),
            (r"api/validate-yaml", self.validate),
            (rf"api/{REPOSITORY}/preupload/(?P<revision>[^/]+)", self.preupload),
            (rf"api/{REPOSITORY}/commit/(?P<revision>[^/]+)", self.commit),
            (rf"api/{REPOSITORY}/branch/(?P<revision>[^/]+)", self.branch),
            (rf"api/{REPOSITORY}/tag/(?P<revision>[^/]+)", self.tag),
            (rf"api/{REPOSITORY}/paths-info/(?P<revision>[^/]+)", self.paths_info),
            (r"(?P<kind>datasets/)?(?P<name>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", self.batch),
        )

    def do_PUT(self):
        self._dispatch((r"lfs/(?P<sha256>\w{64})", self.upload))

    # Transport

    def _dispatch(self, *routes):
        path = urlsplit(self.path).path.strip("/")
        self.passed, self.ended = 0, False
        try:
            for pattern, answer in routes:
                if match := re.fullmatch(pattern, path):
                    values = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                    answer(**values)
                    break
            else:
                raise HubError(404)
        except HubError as error:
            self._drain()
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            self._send(error.status, {"error": error.message or error.code or "not found"}, headers)
        except (TimeoutError, ConnectionError):
            self.close_connection = True
        finally:
            with self.hub.lock:
                self.hub.log.append((self.command, path, self.passed, self.headers.get("Range")))

    def _take_cut(self) -> Cut | None:
        with self.hub.lock:
            for cut in self.hub.cuts:
                if cut.method == self.command and cut.path in self.path:
                    self.hub.cuts.remove(cut)
                    return cut
        return None

    def _break(self, cut: Cut):
        """Close the connection in the middle, or `reset` it, which the other side cannot take for an end."""
        if cut.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Closed here and now: the server would end the stream first, and that may be all the other side sees.
            os.close(self.connection.detach())
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def _drain(self):
        while self._read_some():
            pass

    def _read_some(self) -> bytes:
        left = int(self.headers.get("Content-Length") or 0) - self.passed
        if self.headers.get("Transfer-Encoding") == "chunked":
            piece = b"" if self.ended else self.rfile.read(int(self.rfile.readline(), 16))
            if not self.ended:
                self.rfile.readline()
            self.ended = not piece
        else:
            piece = self.rfile.read(min(CHUNK, left)) if left > 0 else b""
        self.passed += len(piece)
        return piece

    def _body(self) -> bytes:
        cut, pieces = self._take_cut(), []
        while piece := self._read_some():
            pieces.append(piece)
            if cut is not None and self.passed >= cut.after:
                self._break(cut)
        return b"".join(pieces)

    def _send(self, status: int, body: bytes | dict | list = b"", headers: dict | None = None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        headers = {"Content-Type": kind, "Content-Length": str(len(content))} | (headers or {})
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self._take_cut()
        for start in range(0, len(content), CHUNK):
            self.wfile.write(content[start : start + CHUNK])
            self.passed += len(content[start : start + CHUNK])
            if cut is not None and self.passed >= cut.after:
                self.wfile.flush()
                self._break(cut)

    # Who asks for what

    def _is_owner(self) -> bool:
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {self.hub.token}"):
            raise HubError(401, message="Invalid credentials in Authorization header")
        return authorization is not None

    def _repository(self, kind: str, name: str, write: bool = False) -> Repository:
        is_owner = self._is_owner()
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and not is_owner):
            # Who may not see a repository does not learn whether it is there.
            raise HubError(404 if is_owner else 401, "RepoNotFound", "Repository not found")
        if write and not (is_owner and name.startswith(f"{self.hub.user}/")):
            raise HubError(403, message="You don't have the rights to write to this repository.")
        return repository

    def _files(self, repository: Repository, revision: str) -> tuple[str, dict[str, Blob]]:
        sha = repository.resolve(revision)
        if sha not in repository.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repository.commits[sha]

    # Routes

    def whoami(self):
        if not self._is_owner():
            raise HubError(401, message="Invalid username or password.")
        self._send(200, {"type": "user", "name": self.hub.user, "orgs": []})

    def create(self):
        request = json.loads(self._body())
        if not self._is_owner():
            raise HubError(401, message="Invalid username or password.")
        owner = request.get("organization") or self.hub.user
        kind, name = f"{request.get('type') or 'model'}s", f"{owner}/{request['name']}"
        if owner != self.hub.user:
            raise HubError(403, message=f"You don't have the rights to create a model under the namespace {owner!r}.")
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.hub.repositories:
            return self._send(409, {"error": "You already created this model repo", "url": url})
        repository = self.hub.repositories[kind, name] = Repository(request.get("visibility") == "private")
        repository.commit("main", {}, "Initial commit")
        return self._send(200, {"url": url, "id": name, "name": name})

    def validate(self):
        """As the Hub: some licences it knows, a list of these, or `other` with a name."""
        start, *parts = json.loads(self._body())["content"].split("---\n")
        front_matter = yaml.safe_load(parts[0]) if parts and not start.strip() else {}
        licences = front_matter.get("license", [])
        licences = [licences] if isinstance(licences, str) else licences
        known = {"apache-2.0", "cc-by-3.0", "cc-by-4.0", "cc0-1.0", "mit", "other", "zlib"}
        wrong = [licence for licence in licences if licence not in known]
        errors = [{"message": f'"license" must be one of {sorted(known)}'}] if wrong else []
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def info(self, kind: str, name: str, revision: str = "main"):
        repository = self._repository(kind, name)
        sha, files = self._files(repository, revision)
        siblings = [{"rfilename": path, "size": len(blob.content)} for path, blob in sorted(files.items())]
        facts = {"private": repository.private, "gated": False, "disabled": False, "tags": [], "downloads": 0}
        self._send(200, {"id": name, "sha": sha, "siblings": siblings, "likes": 0} | facts)

    def refs(self, kind: str, name: str):
        repository = self._repository(kind, name)

        def listing(refs, prefix):
            return [{"name": ref, "ref": f"refs/{prefix}/{ref}", "targetCommit": sha} for ref, sha in refs.items()]

        self._send(
            200,
            {
                "branches": listing(repository.branches, "heads"),
                "tags": listing(repository.tags, "tags"),
                "converts": [],
            },
        )

    def branch(self, kind: str, name: str, revision: str):
        repository = self._repository(kind, name, write=True)
        start = json.loads(self._body() or b"{}").get("startingPoint", "main")
        repository.branches[revision] = repository.resolve(start)
        self._send(200, {})

    def tag(self, kind: str, name: str, revision: str):
        repository = self._repository(kind, name, write=True)
        repository.tags[json.loads(self._body())["tag"]] = repository.resolve(revision)
        self._send(200, {})

    def _entry(self, path: str, blob: Blob) -> dict:
        entry = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
        if blob.is_lfs:
            entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 134}
        return entry

    def _listing(self, files: dict[str, Blob]) -> dict[str, dict]:
        """Path -> entry of every file and of every folder that holds one."""
        parents = {str(parent) for path in files for parent in Path(path).parents} - {"."}
        folders = {
            path: {"type": "directory", "path": path, "size": 0, "oid": Blob(path.encode()).oid} for path in parents
        }
        return folders | {path: self._entry(path, blob) for path, blob in files.items()}

    def tree(self, kind: str, name: str, revision: str, path: str = ""):
        _, files = self._files(self._repository(kind, name), revision)
        inside = {p: entry for p, entry in self._listing(files).items() if not path or p.startswith(f"{path}/")}
        if path and not inside:
            raise HubError(404, "EntryNotFound", f"{path} does not exist")
        if "recursive=true" not in urlsplit(self.path).query.lower():
            inside = {p: entry for p, entry in inside.items() if "/" not in p[len(path) :].strip("/")}
        self._send(200, [entry for _, entry in sorted(inside.items())])

    def paths_info(self, kind: str, name: str, revision: str):
        body = self._body()
        _, files = self._files(self._repository(kind, name), revision)
        listing = self._listing(files)
        self._send(200, [listing[path] for path in json.loads(body)["paths"] if path in listing])

    def resolve(self, name: str, revision: str, path: str, kind: str = "models/"):
        sha, files = self._files(self._repository(kind.strip("/"), name), revision)
        if path not in files:
            raise HubError(404, "EntryNotFound", f"{path} does not exist")
        blob, headers = files[path], {"X-Repo-Commit": sha}
        if not blob.is_lfs:
            return self._send_range(blob.content, headers | {"ETag": f'"{blob.oid}"'})
        linked = {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
        self.hub.storage[blob.sha256] = blob.content
        return self._send(302, b"", headers | linked | {"Location": f"{self.hub.storage_url}/lfs/{blob.sha256}"})

    def download(self, sha256: str):
        if sha256 not in self.hub.storage:
            raise HubError(404)
        self._send_range(self.hub.storage[sha256], {"ETag": f'"{sha256}"'})

    def _send_range(self, content: bytes, headers: dict):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return self._send(200, content, headers | {"Accept-Ranges": "bytes"})
        start, stop = int(wanted[1]), min(int(wanted[2] or len(content) - 1) + 1, len(content))
        if start >= len(content):
            raise HubError(416)
        return self._send(
            206, content[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        )

    def preupload(self, kind: str, name: str, revision: str):
        body = json.loads(self._body())
        _, files = self._files(self._repository(kind, name, write=True), revision)
        answers = []
        for file in body["files"]:
            answer = {"path": file["path"], "shouldIgnore": False}
            answer["uploadMode"] = "lfs" if file["size"] > LFS_SIZE else "regular"
            if file["path"] in files:
                blob = files[file["path"]]
                answer["oid"] = blob.sha256 if blob.is_lfs else blob.oid
            answers.append(answer)
        self._send(200, {"files": answers})

    def batch(self, name: str, kind: str = "models/"):
        body = json.loads(self._body())
        self._repository(kind.strip("/"), name, write=True)
        objects = []
        for one in body["objects"]:
            answer = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.storage:
                answer["actions"] = {"upload": {"href": f"{self.hub.storage_url}/lfs/{one['oid']}"}}
            objects.append(answer)
        self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, sha256: str):
        content = self._body()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise HubError(422, message="The bytes are not those that were announced.")
        self.hub.storage[sha256] = content
        self._send(200)

    def commit(self, kind: str, name: str, revision: str):
        lines = [json.loads(line) for line in self._body().splitlines()]
        repository = self._repository(kind, name, write=True)
        _, files = self._files(repository, revision)
        files, title = dict(files), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                title = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.storage:
                    raise HubError(400, message=f"{value['path']} was not uploaded.")
                files[value["path"]] = Blob(self.hub.storage[value["oid"]])
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
            else:
                raise HubError(400, message=f"unknown operation {line['key']}")
        sha = repository.commit(revision, files, title)
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})
