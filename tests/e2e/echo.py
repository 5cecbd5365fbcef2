# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a gateway, for tests of the load balancer alone: names itself, then echoes.

usage: echo.py NAME PORT HEALTH_PORT HEALTH_FILE
Each connection to PORT is greeted with "NAME CLIENT-ADDRESS\\n" and every line comes back. The
health port answers any HTTP request with the status that is written in HEALTH_FILE.
"""

import asyncio
import sys


async def main(name, port, health_port, health_file):
    async def echo(reader, writer):
        writer.write(f"{name} {writer.get_extra_info('peername')[0]}\n".encode())
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def health(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        with open(health_file, encoding="ascii") as file:
            status = file.read().strip()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    servers = [
        await asyncio.start_server(echo, "0.0.0.0", int(port), backlog=4096),
        await asyncio.start_server(health, "0.0.0.0", int(health_port)),
    ]
    print("listening", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(*sys.argv[1:]))
