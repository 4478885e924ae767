"""Many uploads at the same time, and the most memory that the server takes for them: a program for conformance/tests/s3/bounds.rs.

    memory.py COUNT LEN MOST

COUNT connections put an object of LEN bytes each, of their own and not to be compressed, all of them going on together: each sends a little
and then it is the next one's turn. Fails if the server's anonymous memory is ever above MOST MiB, and where an object is not what was sent.
"""

import hashlib
import os
import resource
import selectors
import socket
import sys
import urllib.parse

import door

BLOCK = 64 << 10
BASE = os.urandom(1 << 20)


def block(number, at, len_):
    """The next bytes of a body: random, with a stamp of its own in each 4 KiB, so that no chunk is another's."""
    start = (number * 7919 + at) % (len(BASE) - BLOCK)
    stamp = hashlib.md5(f"{number} {at}".encode()).digest() * 2
    pieces = (stamp + BASE[start + step : start + step + 4064] for step in range(0, len_, 4096))
    return b"".join(pieces)[:len_]


def resident():
    """MiB of anonymous memory."""
    with open(f"/proc/{os.environ['CAIRN_S3_PID']}/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["RssAnon"].split()[0]) / 1024


class Upload:
    """One of them, in the mode in which today's clients send: chunks that are not signed, and a check sum behind them."""

    def __init__(self, number, len_):
        self.number, self.len, self.at, self.crc, self.md5 = number, len_, 0, 0, hashlib.md5()
        url = urllib.parse.urlsplit(door.ENDPOINT)
        self.socket = socket.create_connection((url.hostname, url.port))
        asked = door.Signed(
            "PUT",
            f"/memory/{number}",
            payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            headers={"x-amz-decoded-content-length": str(len_), "content-encoding": "aws-chunked", "x-amz-trailer": "x-amz-checksum-crc32"},
        )
        framed = sum(len(f"{size:x}") + size + 4 for size in self.sizes())
        headers = {**asked.headers(), "content-length": str(framed + len("0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"))}
        lines = [f"PUT {asked.path} HTTP/1.1"] + [f"{name}: {value}" for name, value in headers.items()]
        self.out = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self.answer = b""
        self.socket.setblocking(False)

    def sizes(self):
        return [min(BLOCK, self.len - at) for at in range(0, self.len, BLOCK)]

    def write(self):
        """Sends a little. Whether there is more."""
        if not self.out:
            if self.at is None:
                return False
            if self.at == self.len:
                self.out = f"0\r\nx-amz-checksum-crc32:{door.base64.b64encode(self.crc.to_bytes(4, 'big')).decode()}\r\n\r\n".encode()
                self.at = None
            else:
                data = block(self.number, self.at, min(BLOCK, self.len - self.at))
                self.at += len(data)
                self.crc = door.zlib.crc32(data, self.crc)
                self.md5.update(data)
                self.out = f"{len(data):x}\r\n".encode() + data + b"\r\n"
        self.out = self.out[self.socket.send(self.out) :]
        return True

    def read(self):
        """Whether the answer is still to come."""
        data = self.socket.recv(65536)
        self.answer += data
        return bool(data) and b"\r\n\r\n" not in self.answer


def main(count, len_, most):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    s3 = door.client()
    s3.create_bucket(Bucket="memory")
    before = resident()
    uploads = [Upload(number, len_) for number in range(count)]
    selector = selectors.DefaultSelector()
    for upload in uploads:
        selector.register(upload.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, upload)
    left, peak, rounds = count, before, 0
    while left:
        for key, events in selector.select():
            upload = key.data
            if events & selectors.EVENT_WRITE and not upload.write():
                selector.modify(upload.socket, selectors.EVENT_READ, upload)
            if events & selectors.EVENT_READ and not upload.read():
                selector.unregister(upload.socket)
                upload.socket.close()
                left -= 1
        rounds += 1
        if rounds % 8 == 0:
            peak = max(peak, resident())
    print(f"{count} uploads of {len_ >> 10} KiB together: at most {peak:.0f} MiB, {before:.0f} before")
    for upload in uploads:
        head = upload.answer.decode().lower()
        assert head.startswith("http/1.1 200") and f'etag: "{upload.md5.hexdigest()}"' in head, upload.answer
    for upload in uploads[:: max(1, count // 10)]:
        body = s3.get_object(Bucket="memory", Key=str(upload.number))["Body"].read()
        assert hashlib.md5(body).digest() == upload.md5.digest()
    assert peak <= most, f"{peak:.0f} MiB, and not {most}"


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
