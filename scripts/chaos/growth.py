"""Whether a figure grows, in spite of its noise."""

import statistics

# A stretch of samples is cut into so many parts, and each is its median: what comes and goes within
# a part is no growth.
PARTS = 12
# Growth over the whole stretch counts beyond so many times the noise of the parts, beyond this
# share of the figure, and beyond what is nothing in its unit.
NOISE = 4.0
SHARE = 0.03
FLOORS = {"bytes": 512 << 10, "count": 2}


def floor_of(name):
    return FLOORS["bytes" if "bytes" in name else "count"]


def growth(samples):
    """By how much the line through `samples`, pairs of time and value, goes up from their first to
    their last time, and the noise around it. The line is that of Theil and Sen, the median of all
    slopes, which a few outliers do not move."""
    parts = list(medians(samples))
    if len(parts) < 3:
        return 0.0, 0.0
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for at, earlier in enumerate(parts)
        for later in parts[at + 1 :]
        if later[0] > earlier[0]
    ]
    slope = statistics.median(slopes)
    base = statistics.median(value - slope * time for time, value in parts)
    # 1.48 median deviations are a standard deviation of noise that is normal.
    noise = 1.48 * statistics.median(abs(value - base - slope * time) for time, value in parts)
    return slope * (samples[-1][0] - samples[0][0]), noise


def medians(samples):
    """The medians of the parts."""
    parts = min(PARTS, len(samples))
    for part in range(parts):
        some = samples[len(samples) * part // parts : len(samples) * (part + 1) // parts]
        yield statistics.median(time for time, _ in some), statistics.median(v for _, v in some)


def grows(name, samples):
    """What to say of a figure that grows; `None` of one that does not."""
    if not samples:
        return None
    rise, noise = growth(samples)
    usual = statistics.median(value for _, value in samples)
    least = max(NOISE * noise, SHARE * usual, floor_of(name))
    if rise <= least:
        return None
    minutes = (samples[-1][0] - samples[0][0]) / 60
    grown = f"{name} grows by {rise:,.0f} in {minutes:.1f} min"
    return f"{grown}, from about {usual:,.0f} (noise {noise:,.0f})"
