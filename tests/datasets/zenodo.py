"""A server of records that misbehaves as real ones do, and what it has."""

import hashlib
import io
import json
import random
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LICENCE = "cc-by-nc-sa-4.0"
DEV = "records/6355122/files/dev_fan.zip"
TRAIN = "records/6462969/files/eval_data_fan_train.zip"
EVAL = "records/6586456/files/eval_data_fan_test.zip"

# 200 kB that do not compress, so that a download has a middle.
NOISE = random.Random(0).randbytes(100_000)
DEV_FILES = {
    "fan/train/section_00_source_train_normal_0000_m-n_W.wav": NOISE,
    "fan/train/section_00_target_train_normal_0001_m-n_X.wav": NOISE[::-1],
    "fan/test/section_00_source_test_normal_0000_m-n_W.wav": b"a",
    "fan/test/section_00_target_test_anomaly_0000_m-n_X.wav": b"b",
    "fan/attributes_00.csv": b"file_name,d1p,d1v\n",
}
TRAIN_FILES = {
    "fan/train/section_03_source_train_normal_0000_vel_1.wav": b"c",
    "fan/attributes_03.csv": b"file_name,d1p,d1v\n",
}
EVAL_FILES = {"fan/test/section_03_0000.wav": b"d", "fan/test/section_03_0001.wav": b"e"}


def archive_of(files):
    """Bytes of a zip archive; names may be ZipInfo."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


class Zenodo:
    """A server of records. `plan` lists by path what to do with the next requests."""

    def __init__(self):
        self.files = {}
        self.checksums = {}
        self.plan = {}
        self.log = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def put(self, path, content, checksum=None):
        self.files[path] = content
        self.checksums[path] = checksum or f"md5:{hashlib.md5(content).hexdigest()}"

    def count(self, path):
        return sum(asked == path for asked, _ in self.log)

    def ranges(self, path):
        return [start for asked, start in self.log if asked == path]

    def answer(self, handler):
        path = handler.path.split("?")[0].strip("/")
        sent = handler.headers.get("Range")
        self.log.append((path, sent))
        step = self.plan[path].pop(0) if self.plan.get(path) else "all"
        headers, status = {}, 200
        if step == "429":
            headers, status, body = {"Retry-After": "7"}, 429, b""
        elif step.isdecimal():
            status, body = int(step), b"trouble"
        elif step.startswith("go "):
            headers, status, body = {"Location": step[3:]}, 302, b""
        elif step.startswith("say "):
            body = step[4:].encode()
        elif path.startswith("api/records/"):
            body = json.dumps(self.record(path.rsplit("/", 1)[-1])).encode()
        elif path not in self.files:
            status, body = 404, b""
        else:
            body = self.files[path]
            if step.startswith("promise "):
                headers["Content-Length"] = step[8:]
            if sent and step != "no ranges":
                start = int(re.fullmatch(r"bytes=(\d+)-", sent)[1])
                status = 206 if start < len(body) else 416
                last = f"{start}-{len(body) - 1}" if status == 206 else "*"
                headers["Content-Range"] = f"bytes {last}/{len(body)}"
                body = body[start:]
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        # "cut 1000": the line breaks after so many bytes.
        handler.wfile.write(body[: int(step[4:])] if step.startswith("cut ") else body)

    def record(self, number):
        prefix = f"records/{number}/files/"
        files = [
            {"key": path.removeprefix(prefix), "checksum": checksum}
            for path, checksum in self.checksums.items()
            if path.startswith(prefix)
        ]
        return {"metadata": {"title": "A set", "license": {"id": LICENCE}}, "files": files}
