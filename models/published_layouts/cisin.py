"""Names in state dicts of yj-yu/CiSIN's `CISINModel`, and in those of the thesis's formulas."""

import re

# Published entries that nothing in the scores depends on.
NOT_READ = re.compile(r"act_conv\..*|vid_model\.f_proj[12]\..*|.*\.num_batches_tracked")

# Entries of encoders, which a network that is given embeddings does not have.
ENCODERS = re.compile(r"(bert|body)\..*")

# Published names -> flat names, the first that fits.
_PUBLISHED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(theirs), flat)
    for theirs, flat in (
        (r"s_s_proj\.0\.(\w+)", r"ground.text_face.fc1.\1"),
        (r"s_s_proj\.3\.(\w+)", r"ground.text_face.fc2.\1"),
        (r"s_a_proj\.0\.(\w+)", r"ground.text_motion.fc1.\1"),
        (r"s_a_proj\.3\.(\w+)", r"ground.text_motion.fc2.\1"),
        (r"i_s_proj\.0\.(\w+)", r"ground.face.fc1.\1"),
        (r"i_s_proj\.3\.(\w+)", r"ground.face.fc2.\1"),
        (r"i_a_proj\.0\.(\w+)", r"ground.motion.fc1.\1"),
        (r"i_a_proj\.3\.(\w+)", r"ground.motion.fc2.\1"),
        (r"meta_proj\.0\.(\w+)", r"ground.meta.fc1.\1"),
        (r"fuse_fc\.0\.(\w+)", r"ground.score.fc1.\1"),
        (r"fuse_fc\.2\.(\w+)", r"ground.score.fc2.\1"),
        (r"text_reid_fc\.0\.(\w+)", r"text.pair.fc1.\1"),
        (r"text_reid_fc\.3\.(\w+)", r"text.pair.fc2.\1"),
        (r"gender_fc\.0\.(\w+)", r"gender.fc1.\1"),
        (r"gender_fc\.3\.(\w+)", r"gender.fc2.\1"),
        (r"vid_model\.p_score_fc\.(\w+)", r"video.part_scale.\1"),
        (r"vid_model\.f_score_fc\.(\w+)", r"video.face_scale.\1"),
        (r"vid_model\.pid_conv\.(.+)", r"body.\1"),
    )
)


def flat_key(key: str) -> str:
    """The formulas' name of an entry of a published checkpoint; others stay as they are."""
    for theirs, flat in _PUBLISHED:
        if theirs.fullmatch(key):
            return theirs.sub(flat, key)
    return key
