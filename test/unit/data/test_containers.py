"""What is opened at all: by content, never by name; no file leads a decoder to another one; sizes before decoding."""
import json
import re
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from film_numbers import FILMS, FRAMES, UNIT, decode_all

from data import strict_decoding
from data.clip_readers import UnreadableClip, VideoFile
from data.containers import HEAD, refusal, size_refusal, stated_sizes

MPD = ('<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" type="static">'
       '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" width="128" height="96">'
       '<BaseURL>film.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>')
LEADERS = {  # files that name other files or places
    "playlist": "#EXTM3U\n#EXTINF:10,\nfilm.avi\n#EXT-X-ENDLIST\n",
    "playlist of addresses": "#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/film.ts\n",
    "list of files": "ffconcat version 1.0\nfile film.avi\n",
    "concat": "concat:film.avi|film.avi",
    "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "manifest": MPD,
    "manifest behind MP4's magic": "<!--free-->" + MPD,
    "manifest behind AVI's magic": "RIFF<!--AVI -->" + MPD,
    "list behind MP4's magic": "#freeffconcat version 1.0\nfile film.avi\n",
    "session behind MP4's magic": "v=0\nfree\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "script": "Version(1)\nAviSource(\"film.avi\")\n",
    "stream redirector": "<ASX version=\"3.0\"><Entry><Ref href=\"film.avi\"/></Entry></ASX>",
    "picture": "<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"film.jpg\"/></svg>",
}


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".m3u8", ".mpd", ".ffconcat", ".sdp"])
@pytest.mark.parametrize("case", sorted(LEADERS))
def test_no_content_leads_to_another_file(case, suffix, tmp_path):
    for name, film in (("film.avi", "mjpeg.avi"), ("film.mp4", "h264_b.mp4")):
        (tmp_path / name).write_bytes((FILMS / film).read_bytes())
    (tmp_path / ("clip" + suffix)).write_text(LEADERS[case])
    with pytest.raises(UnreadableClip):
        VideoFile(str(tmp_path / ("clip" + suffix)), 10).read([0])


def test_the_decoder_itself_refuses_lists_of_files(tmp_path, monkeypatch):
    """Past our own look at the content, FFmpeg is held to the same containers."""
    monkeypatch.setattr("data.clip_readers.refusal", lambda name, head: "")
    (tmp_path / "film.avi").write_bytes((FILMS / "mjpeg.avi").read_bytes())
    (tmp_path / "clip.avi").write_text("ffconcat version 1.0\nfile film.avi\n")
    with pytest.raises(UnreadableClip, match="cannot be opened"):
        VideoFile(str(tmp_path / "clip.avi"), 10).read([0])


@pytest.mark.parametrize("name", [
    "concat:film.avi|film.avi", "pipe:0", "pipe:", "fd:0", "data:video/avi;base64,AAAA", "cache:film.avi",
    "subfile,,start,0,end,0,,:film.avi", "crypto:film.avi", "http://127.0.0.1:9/film.avi", "tcp://127.0.0.1:9",
    "file:film.avi", "async:film.avi"])
def test_names_are_names_of_files(name, tmp_path, monkeypatch):
    """No protocol; and where a file really has such a name, it is that file that is read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "film.avi").write_bytes((FILMS / "mjpeg.avi").read_bytes())
    with pytest.raises(UnreadableClip, match="No such file"):
        VideoFile(name)
    if "/" not in name:
        (tmp_path / name).write_bytes((FILMS / "xvid_packed_b.avi").read_bytes())
        assert VideoFile(name).num_frames == FRAMES["xvid_packed_b.avi"]


def alias(path):
    """A QuickTime alias record of an absolute path, as FFmpeg reads it."""
    name = path.encode()
    record = bytes(10) + b"\0" + bytes(27 + 12) + b"\0" + bytes(63 + 16) + struct.pack(">HH", 0, 0) + bytes(16)
    return record + struct.pack(">HH", 2, len(name)) + name + b"\0" * (len(name) % 2) + b"\xff\xff\0\0"


def film_elsewhere(path):
    """h264_b.mp4 without its pictures: its data reference says that they are in the file at `path`."""
    content = bytearray((FILMS / "h264_b.mp4").read_bytes())
    start, size = content.index(b"mdat") + 4, struct.unpack_from(">I", content, content.index(b"mdat") - 4)[0]
    content[start:start + size - 8] = bytes(size - 8)
    place = content.index(b"dref") + 12
    entry = struct.pack(">I4sI", 12 + len(alias(path)), b"alis", 0) + alias(path)
    grown = len(entry) - struct.unpack_from(">I", content, place)[0]
    content[place:len(entry) - grown + place] = entry
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = content.index(box) - 4
        struct.pack_into(">I", content, at, struct.unpack_from(">I", content, at)[0] + grown)
    return bytes(content)


def test_a_films_pictures_are_not_taken_from_another_file(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(film_elsewhere(str(FILMS / "h264_b.mp4")))
    try:
        frames = VideoFile(str(tmp_path / "clip.mp4"), 72).read(range(72))
    except UnreadableClip:
        return
    assert not any((frame[..., ::-1] == true).all() for frame, true in zip(frames, decode_all(FILMS / "h264_b.mp4")))


@pytest.mark.skipif(strict_decoding.strict_decoder() is None, reason="needs PyAV to follow the reference")
def test_that_film_would_lead_there(tmp_path):
    """The file of the test above does what it should be feared for, where a decoder is told to follow it."""
    import av
    (tmp_path / "clip.mp4").write_bytes(film_elsewhere(str(FILMS / "h264_b.mp4")))
    with av.open(str(tmp_path / "clip.mp4"), options={"enable_drefs": "1", "use_absolute_path": "1"}) as film:
        frames = list(film.decode(video=0))
    assert len(frames) == 72


def test_sizes_that_are_read():
    assert size_refusal(1, 1) == size_refusal(8192, 4320) == size_refusal(4320, 8192) == ""
    for size in ((0, 10), (10, 0), (8193, 1), (1, 8193), (8192, 8192), (-5, 5)):
        assert "%d x %d pixels; 1 to 8192 a side" % size in size_refusal(*size)


def box(name, payload):
    return struct.pack(">I4s", 8 + len(payload), name) + payload


def heads():
    """(container, its head with a track of sound, and one of pictures of 9000 x 8)."""
    def avi(kind, form):
        return b"strh" + struct.pack("<I4s52x", 56, kind) + b"strf" + struct.pack("<I", len(form)) + form
    sound = avi(b"auds", struct.pack("<HHIIHH", 1, 1, 48000, 48000, 1, 8))
    pictures = avi(b"vids", struct.pack("<IiiHH24x", 40, 9000, -8, 1, 24))
    yield b"RIFF\0\0\0\0AVI " + sound + pictures
    for version, times in ((0, 20), (1, 32)):
        def track(width, height, version=version, times=times):
            return box(b"tkhd", struct.pack(">B3x", version) + bytes(times + 52) + struct.pack(">II", width, height))
        yield box(b"ftyp", b"isom") + box(b"moov", track(0, 0) + track(9000 << 16, 8 << 16))
    yield b"\x1a\x45\xdf\xa3" + b"\xe0\x87\xb0\x82\x23\x28\xba\x81\x08"


def test_what_a_head_states():
    for head in heads():
        assert list(stated_sizes(head)) == [(9000, 8)] and "9000 x 8 pixels" in refusal("clip", head)
    for name in sorted(FRAMES):
        head = (FILMS / name).read_bytes()[:HEAD]
        assert refusal(name, head) == "" and list(stated_sizes(head)) in ([], [(128, 96)])


def absurd_sizes(root):
    """Files small on disk whose heads, or whose pictures, state enormous frames."""
    def stated(film, place, form, width, height):
        changed = bytearray((FILMS / film).read_bytes())
        struct.pack_into(form, changed, place(changed), width, height)
        return bytes(changed)

    def pictures(width, height, progressive):
        jpeg = bytearray(cv2.imencode(".jpg", np.zeros((96, 128, 3), np.uint8),
                                      [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes())
        struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5, height, width)
        return bytes(jpeg)

    for width, height in ((65535, 65535), (8191, 8191), (2 ** 31 - 1, 1), (40000, 4)):
        for film in ("xvid_no_b.avi", "mjpeg.avi"):
            yield root / ("%d_%d_%s" % (width, height, film)), stated(
                film, lambda content: content.index(b"strf") + 12, "<ii", width, height)
    for width, height in ((65535, 65535), (16000, 16000), (8191, 8191)):
        yield root / ("%d_%d.mp4" % (width, height)), stated(
            "h264_b.mp4", lambda content: content.index(b"avc1", content.index(b"stsd")) + 28, ">HH", width, height)
        film = (FILMS / "mjpeg.avi").read_bytes()
        yield root / ("pictures_%d_%d.avi" % (width, height)), re.sub(
            b"\xff\xc0\0\x11\x08....", b"\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width), film,
            flags=re.DOTALL)
        for progressive in (0, 1):
            yield root / ("pictures_%d_%d_%d" % (width, height, progressive)) / "img_00001.jpg", pictures(
                width, height, progressive)
    yield root / "largest" / "img_00001.jpg", pictures(8192, 4320, 1)
    yield root / "tracks.mkv", b"\x1a\x45\xdf\xa3" + b"\xe0\x87\xb0\x82\xff\xff\xba\x82\xff\xff" + bytes(2000)


IN_LITTLE_MEMORY = """
import json, os, resource, sys
sys.path[:0] = sys.argv[2:]
from data.clip_readers import RawFrames, UnreadableClip, VideoFile
VideoFile(%r).read([0])
room = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
for name in sorted(os.listdir(sys.argv[1])):
    path = os.path.join(sys.argv[1], name)
    try:
        frames = (RawFrames if os.path.isdir(path) else VideoFile)(path).read([0])
        print(json.dumps([name, frames.shape]), flush=True)
    except UnreadableClip as error:
        print(json.dumps([name, error.reason]), flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_absurd_sizes_claim_no_memory(tmp_path):
    """In 256 MB: a refusal, or the film's frames where its pictures state their true size; never the process's end."""
    names = set()
    for path, content in absurd_sizes(tmp_path):
        names.add(path.relative_to(tmp_path).parts[0])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    child = subprocess.run([sys.executable, "-c", IN_LITTLE_MEMORY % str(FILMS / "mjpeg.avi"), str(tmp_path),
                            str(UNIT.parents[1])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert child.returncode == 0, child.stderr.decode()[-2000:]
    found = dict(json.loads(line) for line in child.stdout.decode().splitlines())
    assert set(found) == names
    for name, result in found.items():
        read = result == [1, 4320, 8192, 3] if name == "largest" else result == [1, 96, 128, 3] and name.endswith("mp4")
        assert isinstance(result, str) or read, (name, result)
