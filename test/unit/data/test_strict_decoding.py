"""The strict count: whole files of many codings are sound, and what is lost or damaged ends the sound part."""
import numpy as np
import pytest
from film_numbers import FILMS, FRAMES, decode_all, said_index

from data.strict_decoding import sound_part, strict_decoder

pytestmark = pytest.mark.skipif(strict_decoder() is None, reason="needs the strict decoder: pip install av")
CODINGS = [("avi", "mpeg4", {}), ("avi", "mpeg4", {"bf": "2"}), ("mp4", "mpeg4", {"bf": "3"}), ("mov", "mjpeg", {}),
           ("mkv", "mpeg4", {"bf": "1"}), ("avi", "msmpeg4v2", {}), ("mpg", "mpeg2video", {"bf": "2"}),
           ("flv", "flv", {}), ("wmv", "wmv2", {}), ("avi", "libx264", {}), ("mkv", "libx264", {}),
           ("ts", "libx264", {}), ("mp4", "libx264", {"bf": "8", "b-pyramid": "normal"}),
           ("mp4", "libx265", {"x265-params": "log-level=none"}),
           ("mp4", "libx264", {"x264-params": "open-gop=1:keyint=12"}), ("webm", "libvpx", {"auto-alt-ref": "1"}),
           ("webm", "libvpx-vp9", {})]


def encode(path, coding, options, moving, title="", frames=40):
    """A film of noise, moving or still; skips where this PyAV lacks the encoder."""
    import av
    noise = np.random.RandomState(0).randint(0, 255, (64, 96, 3)).astype(np.uint8)
    with av.open(str(path), "w") as film:
        try:
            stream = film.add_stream(coding, rate=25, options=options)
        except av.codec.codec.UnknownCodecError:
            pytest.skip("no encoder %s" % coding)
        film.metadata["title"] = title
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p" if coding == "mjpeg" else "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, 2 * number * moving, 1), format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))


@pytest.mark.parametrize("moving", [0, 1])
@pytest.mark.parametrize("suffix, coding, options", CODINGS)
def test_whole_films_are_sound(suffix, coding, options, moving, tmp_path):
    """Also where nothing moves, so that packets are tiny."""
    path = tmp_path / ("film." + suffix)
    encode(path, coding, options, moving)
    assert sound_part(str(path)) == (40, "")
    if suffix in ("avi", "mp4"):
        path.write_bytes(path.read_bytes()[:-200] if suffix == "mp4" else path.read_bytes()[:path.stat().st_size // 2])
        assert sound_part(str(path)).num_frames < 40


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_the_films_are_sound(name):
    assert sound_part(str(FILMS / name)) == (FRAMES[name], "")


def test_a_title_in_another_alphabet_is_no_damage(tmp_path):
    path = tmp_path / "film.avi"
    encode(path, "mpeg4", {}, 1, title="Caf_")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Caf_", b"Caf\xe9"))
    assert content != path.read_bytes() and sound_part(str(path)) == (40, "")


def changed(tmp_path, name, change):
    content = bytearray((FILMS / name).read_bytes())
    change(content)
    (tmp_path / "film").write_bytes(bytes(content))
    return tmp_path / "film"


@pytest.mark.parametrize("offset", [1, 7])  # in the name and in the size of the thirtieth piece
@pytest.mark.parametrize("name", ["xvid_no_b.avi", "mjpeg.avi"])
def test_a_piece_that_ffmpeg_skips(name, offset, tmp_path):
    def damage(content):
        place = content.index(b"movi")
        for _ in range(30):
            place = content.index(b"00dc", place + 4)
        content[place + offset] ^= 0x40
    path = changed(tmp_path, name, damage)
    shown = decode_all(path)
    assert len(shown) == 71 and said_index(shown[40]) == 41  # one is missing, without a word
    count, complaint = sound_part(str(path))
    assert 27 <= count <= 29 and complaint


def test_a_frame_that_says_it_is_none(tmp_path):
    """The bit that says whether an MPEG-4 picture is coded; the decoder then goes on with the next one."""
    def damage(content):
        place = content.index(b"movi")
        for _ in range(20):
            place = content.index(b"\0\0\1\xb6", place + 4)
        content[place + 4:place + 12] = b"\x20\x92\xb4\xc4\x58\x81\x4f\x60"
    path = changed(tmp_path, "xvid_no_b.avi", damage)
    count, complaint = sound_part(str(path))
    assert count == 19 and complaint, complaint


def test_what_is_no_film(tmp_path):
    assert sound_part(str(tmp_path / "missing.avi")).num_frames == 0
    for content in (b"", b"RIFF\0\0\0\0AVI ", b"#EXTM3U\nfilm.avi\n", b"\x1a\x45\xdf\xa3" + bytes(500)):
        (tmp_path / "film.avi").write_bytes(content)
        count, complaint = sound_part(str(tmp_path / "film.avi"))
        assert count == 0 and complaint
