"""A simple SSH server that passes each requested command to a shell.

Arguments: PORT HOST_KEY HOME SHELL UID GID. It ignores signals of the client, as most simple servers do.
"""
import asyncio
import os
import sys

import asyncssh

port, host_key, home, shell, uid, gid = sys.argv[1:]


async def pump(reader, writer):
    while True:
        try:
            data = await reader.read(65536)
        except asyncssh.SignalReceived:
            continue
        if not data:
            return
        writer.write(data)
        await writer.drain()


async def feed(process, child):
    try:
        await pump(process.stdin, child.stdin)
        child.stdin.close()
    except (ConnectionError, asyncssh.Error):
        # The command has stopped reading, or the client has stopped writing.
        pass


async def handle(process):
    if process.command is None:
        process.exit(1)
        return
    child = await asyncio.create_subprocess_shell(
        process.command,
        executable=shell,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=home,
        env={"HOME": home, "SHELL": shell, "PATH": "/usr/bin:/bin", "WRIT_LAB_RUN": os.environ["WRIT_LAB_RUN"]},
        start_new_session=True,
        user=int(uid),
        group=int(gid),
        extra_groups=[],
    )
    feeding = asyncio.create_task(feed(process, child))
    await asyncio.gather(pump(child.stdout, process.stdout), pump(child.stderr, process.stderr))
    code = await child.wait()
    feeding.cancel()
    process.exit(code if code >= 0 else 128 - code)


async def serve():
    keys = os.path.join(home, ".ssh", "authorized_keys")
    await asyncssh.listen(
        "127.0.0.1", int(port), server_host_keys=[host_key], authorized_client_keys=keys,
        process_factory=handle, encoding=None,
    )
    print("listening", flush=True)
    await asyncio.Event().wait()


asyncio.run(serve())
