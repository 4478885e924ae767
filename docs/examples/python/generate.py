"""Makes Python modules of Cairn's .proto files: `python3 generate.py [FOLDER]`, `stubs` beside this file if none is named."""

import pathlib
import sys

from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
APIS = HERE.parents[2] / "gateway" / "proto" / "apis"


def generate(folder, apis=APIS):
    """Writes the modules of all files below `apis`; they are named as the files are: `cairn.v1.objects_pb2`, `…_pb2_grpc`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # What google.protobuf is made of comes with grpcio-tools.
    own = pathlib.Path(protoc.__file__).parent / "_proto"
    files = sorted(str(file) for file in pathlib.Path(apis).rglob("*.proto"))
    words = ["protoc", f"-I{apis}", f"-I{own}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files]
    if not files or protoc.main(words) != 0:
        raise SystemExit(f"the .proto files of {apis} do not compile")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        raise SystemExit(__doc__)
    generate(sys.argv[1] if len(sys.argv) == 2 else HERE / "stubs")
