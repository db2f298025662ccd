// Bun's own WebSocket server (uWebSockets): publish to a topic that every client subscribes to. Env: PORT, SIZE; begins at SIGUSR2.
const SIZE = Number(process.env.SIZE), TICK = 100; // bytes a message, milliseconds
const FILLING = "x".repeat(SIZE - '{"filling":"","sent":1700000000000.000}'.length);

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("WebSocket only", { status: 426 })),
  websocket: {
    open: (socket) => socket.subscribe("board"),
    message: () => {},
  },
});

process.once("SIGUSR2", () =>
  setInterval(() => {
    const sent = (performance.timeOrigin + performance.now()).toFixed(3);
    server.publish("board", `{"filling":"${FILLING}","sent":${sent}}`);
  }, TICK),
);
