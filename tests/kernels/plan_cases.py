"""Rules that every implementation of plan is tested under."""

IDS = {"mask_id": 103, "ordinary_first": 104, "ordinary_last": 999}
OFF = {"rotation": False, "jigsaw": False, "camouflage": False, "num_grey": 0, "num_blank": 0}
RULES = {
    "default": {},
    "random masking": {"guided": False},
    "few tokens": {"max_masked_tokens": 2},
    "no tokens": {"max_masked_tokens": 0},
    "more slots than tokens": {"max_masked_tokens": 40},
    "many patches": {"num_grey": 16, "num_blank": 24},
    "no rotation": {"rotation": False},
    "no jigsaw": {"jigsaw": False},
    "no camouflage": {"camouflage": False},
    "no grey": {"num_grey": 0},
    "no blank": {"num_blank": 0},
    "all tasks off": OFF,
    "fixed scale": OFF | {"grids": (8,), "blank_grid": 8, "num_blank": 6},
    "levels in another order": {"grids": (5, 3, 1, 4, 2)},
    "level without a task": OFF | {"grids": (3, 6), "camouflage": True},
    "no levels": OFF | {"grids": ()},
}
