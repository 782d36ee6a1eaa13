"""The names of KADID-10k's distortions, which configurations read without importing JAX."""

# In KADID-10k's order: number 0 here is its type 1. `kadid.FUNCTIONS` has the same order.
TYPES = (
    "gaussian_blur",
    "lens_blur",
    "motion_blur",
    "colour_diffusion",
    "colour_shift",
    "colour_quantisation",
    "saturation_hsv",
    "saturation_lab",
    "jpeg2000",
    "jpeg",
    "white_noise",
    "colour_noise",
    "impulse_noise",
    "multiplicative_noise",
    "denoise",
    "brighten",
    "darken",
    "mean_shift",
    "jitter",
    "patches",
    "pixelate",
    "quantise",
    "colour_blocks",
    "sharpen",
    "contrast",
)
LEVELS = (0, 1, 2, 3, 4, 5)  # 0: as it is
# Types of which more may please: stronger colour, light or contrast is a matter of taste.
TASTE = ("saturation_lab", "brighten", "darken", "mean_shift", "sharpen", "contrast")
# Every (index of the type, level) in which an image can appear, the image as it is first.
PAIRS = ((0, 0), *((number, level) for number in range(len(TYPES)) for level in LEVELS[1:]))
