"""The round worked by hand again, with deadlines and clients that leave; C never starts."""

import numpy as np

from tests.network.worked import Case

CASES = {}

# C alone would need max(4, 5) + 8 + 5 + 4 + 2 + 16 + 2 = 42 s. Cluster 0 sets the pace: up A, then
# B; down A, both times.
CASES["one is too slow to start"] = Case(
    {"deadline_s": 40.0},
    {
        "model_download": 2,
        "front_forward": 3 + 1,
        "smashed_upload": 2 + 3,
        "back_training": 2.5 + 1.5,
        "gradient_download": 5 + 3,
        "front_backward": 6 + 2,
        "model_upload": 2,
        "averaging": 2.5,
        "distillation": 2,
    },
    {
        ("client_down", "front_half"): 2 * 40,
        ("client_up", "front_half"): 2 * 40,
        ("client_up", "smashed_data"): 13 + 7 + 10 + 10,
        ("client_up", "labels"): 8,
        ("client_down", "cut_gradient"): 10 + 6 + 8 + 8,
        ("edge_down", "back_half"): 80,
        ("edge_up", "back_half"): 80,
        ("edge_up", "smashed_data"): 7 + 10 + 10,
        ("edge_up", "labels"): 1 + 4,
    },
    [37.5 + 34 + 37.5 + 31, 0, 470, 2 * 8 + 3 * 6, 8 + 32, 0],
)

# Before step two, at 20.5, A alone would need 1 + 1 + .5 + 3 + 2 + 2 s and be done at 30; held up
# by B it ends the step at 31 and would arrive at 33. B's 640 + 192 bits leave X by 32.3.
# A takes part for 31 s, and has sent for 3 s.
CASES["one is held up and late"] = Case(
    {"deadline_s": np.float32(32.5)},
    CASES["one is too slow to start"].phase_s | {"model_upload": 1.3, "averaging": 1.5},
    CASES["one is too slow to start"].link_bytes
    | {
        ("client_up", "front_half"): 40,
        ("edge_up", "smashed_data"): 10 + 10,
        ("edge_up", "labels"): 4,
    },
    [31 + 24 + 6 + 35.8 + 31, 0, 323 + 80 + 60, 8 + 18, 40, 0],
)
# A leaves at 20.5. Step two is B's: up 1 + 3 -> 24.5, X 2 samples -> 25.5, down 2 + 2 -> 29.5. A's
# front half arrives at 22.5, B's at 30.5; 640 + 128 + 192 bits from X at 31.
# A takes part for 22.5 s, computes 9, sends 2 + 2. X idles 31 s, computes 3.5 s, sends 9 s.
CASES["one leaves, and what it did is kept"] = Case(
    {"deadline_s": np.float32(40), "keep": True, "stays": [1, 2, 2, 2]},
    {
        "model_download": 2,
        "front_forward": 3 + 1,
        "smashed_upload": 2 + 3,
        "back_training": 2.5 + 1,
        "gradient_download": 5 + 2,
        "front_backward": 6 + 2,
        "model_upload": 1.5,
        "averaging": 2.5,
        "distillation": 2,
    },
    CASES["one is too slow to start"].link_bytes
    | {
        ("client_up", "smashed_data"): 13 + 10 + 10,
        ("client_up", "labels"): 7,
        ("client_down", "cut_gradient"): 10 + 8 + 8,
        ("edge_up", "smashed_data"): 13 + 10 + 10,
        ("edge_up", "labels"): 3 + 4,
    },
    [22.5 + 18 + 8 + 35.5 + 31, 0, 310 + 70 + 45, 2 * 8 + 18, 40, 0],
)

# Before step two A alone would be done at 30 and arrive at 32. With B it would arrive at 33: it
# delivers what it has at 20.5, and B, which would arrive at 32 with A, goes on. All as above.
CASES["one is held up, and what it did is kept"] = CASES[
    "one leaves, and what it did is kept"
]._replace(changes={"deadline_s": np.float32(32.5), "keep": True})

# As above until 29.5; only B's 640 + 192 bits leave X, by 30.8. A takes part for 20.5 s and sends
# for 2.
CASES["one leaves, and what it did is dropped"] = Case(
    {"deadline_s": np.float32(40), "stays": [1, 2, 2, 2]},
    CASES["one leaves, and what it did is kept"].phase_s | {"model_upload": 1.3, "averaging": 1.5},
    CASES["one leaves, and what it did is kept"].link_bytes
    | {
        ("client_up", "front_half"): 40,
        ("edge_up", "smashed_data"): 10 + 10,
        ("edge_up", "labels"): 4,
    },
    [20.5 + 18 + 4 + 34.3 + 31, 0, 308 + 70 + 45, 8 + 18, 40, 0],
)

# A loads in 1 s and alone would need 17.5 + 7.5 + 2 s more. B's load makes it begin at 2 s, too
# late for the deadline; it drops out then. B alone: 2, step one 6, 7, 11, step two 15, 16, 20; its
# 640 + 192 bits leave X by 21.3. X computes 2 s, sends 4 s.
CASES["one is held up before it begins, and does not come back"] = Case(
    {"deadline_s": np.float32(28.5)},
    {
        "model_download": 2,
        "front_forward": 1 + 1,
        "smashed_upload": 3 + 3,
        "back_training": 1 + 1,
        "gradient_download": 2 + 2,
        "front_backward": 2 + 2,
        "model_upload": 1.3,
        "averaging": 1.5,
        "distillation": 2,
    },
    CASES["one leaves, and what it did is dropped"].link_bytes
    | {
        ("client_up", "smashed_data"): 10 + 10,
        ("client_up", "labels"): 4,
        ("client_down", "cut_gradient"): 8 + 8,
    },
    [2 + 24.8 + 31, 0, 213 + 40 + 20, 8 + 18, 40, 0],
)

# Before step two, at 20.5, A alone would be done at 30 and B at 30.5; together they would end it at
# 31. Front halves arrive at 22.5 and 21.5, 640 + 128 + 96 bits from X at 21.85.
CASES["a step that would end late is not begun"] = Case(
    {"deadline_s": np.float32(30.75), "keep": True},
    {
        "model_download": 2,
        "front_forward": 3,
        "smashed_upload": 2,
        "back_training": 2.5,
        "gradient_download": 5,
        "front_backward": 6,
        "model_upload": 2,
        "averaging": 2.5,
        "distillation": 2,
    },
    CASES["one is too slow to start"].link_bytes
    | {
        ("client_up", "smashed_data"): 13 + 10,
        ("client_up", "labels"): 5,
        ("client_down", "cut_gradient"): 10 + 8,
        ("edge_up", "smashed_data"): 13 + 10,
        ("edge_up", "labels"): 5,
    },
    [22.5 + 18 + 8 + 21.5 + 12 + 4, 0, 225 + 50 + 35, 2 * 8 + 18, 40, 0],
)

# The same, and nothing counts. All take part until 20.5, X among them, and deliver nothing.
CASES["nothing counts, and the round waits"] = Case(
    {"deadline_s": np.float32(30.75)},
    {"waiting": 30.75, "distillation": 2},
    {
        ("client_down", "front_half"): 2 * 40,
        ("client_up", "smashed_data"): 13 + 10,
        ("client_up", "labels"): 5,
        ("client_down", "cut_gradient"): 10 + 8,
        ("edge_down", "back_half"): 80,
    },
    [20.5 + 18 + 4 + 20.5 + 12 + 3, 0, 205 + 50 + 35, 18, 32, 0],
)
