"""What a running gateway publishes of itself."""

import aiohttp

from processes import Gateway


async def metric(up: Gateway, name: str, **labels: str) -> float:
    """Return the sum of a family's series that have these labels."""
    async with aiohttp.request("GET", f"{up.admin}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    chosen = [line for line in lines if line.startswith(name) and all(pair in line for pair in wanted)]
    return sum(float(line.rpartition(" ")[2]) for line in chosen)
