"""The MCP Python SDK's low-level server, called through `tools/call`; its stream is progress notifications."""

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server


async def call_tool(ctx, params):
    if params.name == "echo":
        return types.CallToolResult(content=[], structured_content=params.arguments)
    count = params.arguments["count"]
    for number in range(count):
        await ctx.session.send_progress_notification("17", number, message=" hello")
    return types.CallToolResult(content=[], structured_content={"count": count})


async def list_tools(ctx, params):
    tools = [types.Tool(name=name, input_schema={"type": "object"}) for name in ("echo", "stream")]
    return types.ListToolsResult(tools=tools)


async def main():
    server = Server("bench", on_call_tool=call_tool, on_list_tools=list_tools)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


anyio.run(main)
