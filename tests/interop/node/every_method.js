// A client of Node's @grpc/grpc-js: NODE-MODULES PROTO SOCKET LEASE-ID. Prints what it was told, as
// `scenario.EXPECTED` has it.
"use strict";

const [modules, proto, socket, lease] = process.argv.slice(2);
const { createRequire } = require("node:module");
const load = createRequire(`${modules}/`);
const grpc = load("@grpc/grpc-js");
const loader = load("@grpc/proto-loader");

const LIMIT_MS = 20_000;
const names = ["pool", "processes", "files", "ports"].map((name) => `vmpool/v1/${name}.proto`);
const options = { keepCase: true, longs: Number, enums: Number, defaults: true, oneofs: true, includeDirs: [proto] };
const { v1 } = grpc.loadPackageDefinition(loader.loadSync(names, options)).vmpool;
const open = (service) => new service(`unix:${socket}`, grpc.credentials.createInsecure());
const [pool, processes, files, ports] = [v1.Pool, v1.Processes, v1.Files, v1.Ports].map(open);

const deadline = () => ({ deadline: Date.now() + LIMIT_MS });

function unary(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, deadline(), (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

function collected(call) {
  return new Promise((resolve, reject) => {
    const replies = [];
    call.on("data", (reply) => replies.push(reply));
    call.on("error", reject);
    call.on("end", () => resolve(replies));
  });
}

function streamed(client, method, requests) {
  return new Promise((resolve, reject) => {
    const call = client[method](deadline(), (error, reply) => (error ? reject(error) : resolve(reply)));
    requests.forEach((request) => call.write(request));
    call.end();
  });
}

function conversation(client, method, requests) {
  const call = client[method](deadline());
  requests.forEach((request) => call.write(request));
  call.end();
  return collected(call);
}

const text = (replies, field) => Buffer.concat(replies.map((reply) => reply[field] || Buffer.alloc(0))).toString();

async function done(client, method, request) {
  await unary(client, method, request);
  return "OK";
}

async function edited(method, request) {
  return (await unary(files, method, request)).file.size;
}

async function refused(client, method, request) {
  try {
    await unary(client, method, request);
  } catch (error) {
    const [packed] = error.metadata.get("grpc-status-details-bin");
    const decode = (type, data) => loadType(type).decode(data);
    const status = decode("Status", packed);
    const info = decode("ErrorInfo", status.details[0].value);
    return [Object.keys(grpc.status).find((name) => grpc.status[name] === error.code), info.reason, info.domain];
  }
  return ["OK"];
}

const protobuf = createRequire(require.resolve("@grpc/proto-loader", { paths: [modules] }))("protobufjs");
const root = protobuf.loadSync(`${proto}/vmpool/status/status.proto`);
const loadType = (name) => root.lookupType(`vmpool.status.${name}`);

async function echoed(method, start) {
  const replies = await conversation(ports, method, [{ start }, { data: Buffer.from("echo") }, { end: {} }]);
  const kinds = replies.map((reply) => reply.kind).join();
  if (kinds !== "connected,data,end") throw new Error(kinds);
  return text(replies, "data");
}

function accepted() {
  return new Promise((resolve, reject) => {
    const listening = ports.Listen({ lease_id: lease, address: { tcp_port: 0 } }, deadline());
    listening.on("error", (error) => error.code === grpc.status.CANCELLED || reject(error));
    listening.on("data", async (told) => {
      if (told.kind !== "incoming") return;
      try {
        resolve(await echoed("Accept", { connection_id: told.incoming.connection_id }));
      } catch (error) {
        reject(error);
      }
      listening.cancel();
    });
  });
}

async function main() {
  const job = { lease_id: lease, tag: "job" };
  const start = { lease_id: lease, argv: ["echo", "hello"] };
  const at = { lease_id: lease, path: Buffer.from([0x2f, 0x61, 0x70, 0x70, 0x2f, 0xff]) };
  const usage = await unary(pool, "VmMetrics", { lease_id: lease });
  const stat = (await unary(files, "Stat", at)).file;
  const leases = async (labels) => (await unary(pool, "ListLeases", { labels })).leases.map((found) => found.name);
  const told = {
    GetLease: (await unary(pool, "GetLease", { name: "builder" })).lease.name,
    ListLeases: await leases({ job: "7" }),
    "ListLeases of others": await leases({ job: "8" }),
    VmMetrics: [usage.processes, usage.cpu_share],
    Exec: text(await conversation(pool, "Exec", [{ start }]), "stdout"),
    Start: (await unary(processes, "Start", { process: start, tag: "job" })).process.process_id,
    List: (await unary(processes, "List", { lease_id: lease })).processes.map((found) => found.tag),
    Attach: (await conversation(processes, "Attach", [{ start: { process: job } }])).map((reply) => reply.kind),
    Wait: (await unary(processes, "Wait", { process: job })).exit.status,
    SendInput: await done(processes, "SendInput", { process: job, data: Buffer.from("in"), close: true }),
    Signal: await done(processes, "Signal", { process: job, signal: 15 }),
    Resize: await done(processes, "Resize", { process: job, terminal: { rows: 50 } }),
    Forget: await done(processes, "Forget", { process: job }),
    Stat: [stat.kind, stat.size],
    "Files.List": (await collected(files.List(at, deadline()))).map((reply) => reply.files.length),
    Read: text(await collected(files.Read(at, deadline())), "data"),
    Write: (await streamed(files, "Write", [{ start: { ...at, mode: 0 } }, { data: Buffer.from("x") }])).file.size,
    MakeDirectory: await edited("MakeDirectory", at),
    Move: await edited("Move", { ...at, target: Buffer.from("/b") }),
    Copy: await edited("Copy", { ...at, target: Buffer.from("/b") }),
    Remove: await done(files, "Remove", at),
    Link: await edited("Link", { ...at, target: Buffer.from("b") }),
    SetAttributes: await edited("SetAttributes", { ...at, mode: 0 }),
    Watch: (await collected(files.Watch(at, deadline()))).map((reply) => reply.changes.length),
    ReadTree: text(await collected(files.ReadTree(at, deadline())), "data"),
    WriteTree: (await streamed(files, "WriteTree", [{ start: at }, { data: Buffer.from("tar") }])).members,
    "Ports.Wait": await done(ports, "Wait", { lease_id: lease, address: { tcp_port: 80 } }),
    Connect: await echoed("Connect", { lease_id: lease, address: { unix_path: Buffer.from("/run/a") } }),
    Accept: await accepted(),
    "no such tag": await refused(processes, "Wait", { process: { lease_id: lease, tag: "none" } }),
    "relative path": await refused(files, "Stat", { lease_id: lease, path: Buffer.from("a") }),
  };
  console.log(JSON.stringify(told));
  [pool, processes, files, ports].forEach((client) => client.close());
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
