"""What is opened at all: by content, never by name; no file leads a decoder to another one; sizes before decoding."""
import struct

import pytest
from film_numbers import FILMS, FRAMES, decode_all

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
