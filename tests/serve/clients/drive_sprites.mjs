// @fly/sprites against the server whose address is the first argument: real processes, real effects.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { SpritesClient } from '@fly/sprites';

const [, , baseURL, token] = process.argv;
const client = new SpritesClient(token, { baseURL });

async function freePort() {
  const listener = net.createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  return port;
}

async function all(stream) {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events;
}

const kinds = async (stream) => (await all(stream)).map((event) => event.type);

// Sprites.
const sprite = await client.createSprite('js-box', {
  labels: ['js'],
  urlSettings: { auth: 'public' },
  environment: { GREETING: 'hello' },
});
assert.deepEqual(sprite.labels, ['js']);
await assert.rejects(client.createSprite('js-box'));
assert.equal((await client.getSprite('js-box')).urlSettings.auth, 'public');
assert.deepEqual((await client.updateSprite('js-box', { labels: ['new'] })).labels, ['new']);
assert.equal((await sprite.check()).status, 'healthy');
assert.deepEqual((await client.listAllSprites('js-')).map((s) => s.name), ['js-box']);
const watched = await (await client.watchSprites({ prefix: 'js-' })).next();
assert.equal(watched.name, 'js-box');

// Services, and what they do.
const port = await freePort();
const args = ['-um', 'http.server', String(port), '--bind', '127.0.0.1'];
const config = { cmd: 'python3', args, env: { A: '1' }, dir: '/', httpPort: port };
const stream = await sprite.createService('web', config, '30s');
for await (const event of stream) {
  if (event.type === 'stdout') break; // It says that it listens; the stream is closed early.
}
assert.equal((await fetch(`http://127.0.0.1:${port}/`)).status, 200);
assert.equal((await fetch(`${sprite.url}/`)).status, 200);
const web = await sprite.getService('web');
assert.deepEqual([web.cmd, web.args, web.env, web.dir, web.httpPort],
  ['python3', args, { A: '1' }, '/', port]);
assert.equal(web.state.status, 'running');
await assert.rejects(sprite.createService('second', { cmd: 'true', httpPort: port }, '1s'), /conflict/i);
await assert.rejects(sprite.createService('second', { cmd: 'true', needs: ['none'] }, '1s'), /400/);
assert.deepEqual((await sprite.listServices()).map((s) => s.name), ['web']);
await sprite.signalService('web', 'CONT');
await assert.rejects(sprite.signalService('web', 'NOPE'), /Invalid signal/);
const restarted = await kinds(sprite.restartService('web', '0s'));
assert.deepEqual(restarted, ['stopping', 'stopped', 'started', 'complete']);
assert.notEqual((await sprite.getService('web')).state.pid, web.state.pid);
const dying = await all(sprite.createService('dying', { cmd: 'sh', args: ['-c', 'echo bye; exit 3'] }, '500ms'));
assert.equal(dying.find((event) => event.type === 'exit').exitCode, 3);
const logs = await all(sprite.getServiceLogs('dying', { lines: 1 }));
assert.deepEqual(logs.map((event) => [event.type, event.data]), [['stdout', 'bye\n']]);
await sprite.deleteService('dying');
assert.deepEqual(await kinds(sprite.stopService('web', '2s')), ['stopping', 'stopped', 'complete']);
await assert.rejects(sprite.stopService('web'), /not running/);
await assert.rejects(fetch(`http://127.0.0.1:${port}/`));
assert.equal((await kinds(sprite.startService('web', '0s')))[0], 'started');

// Commands, over HTTP and over WebSockets.
const ran = await sprite.execFileHTTP('sh', ['-c', 'cat; echo $GREETING $A >&2'], { input: 'in', env: { A: 'b' } });
assert.deepEqual([ran.stdout, ran.stderr, ran.exitCode], ['in', 'hello b\n', 0]);
await assert.rejects(sprite.execFileHTTP('sh', ['-c', 'exit 3']), (error) => error.exitCode === 3);
await assert.rejects(sprite.execFile('sh', ['-c', 'echo said; exit 3']),
  (error) => error.exitCode === 3 && error.stdout === 'said\n');
const much = await sprite.execFile('head', ['-c', '3000000', '/dev/zero'], { encoding: 'buffer' });
assert.equal(much.stdout.length, 3_000_000);

// One that is left, joined again and killed.
const session = sprite.createSession('sh', ['-c', 'echo begun; sleep 1000']);
await once(session.stdout, 'data');
const [{ id, tty }] = await sprite.listSessions();
assert.equal(tty, true);
session.wsCmd.close();
await session.wait();
assert.equal((await sprite.listSessions())[0].id, id);
const joined = sprite.attachSession(id);
await once(joined, 'spawn');
const ended = joined.wait();
assert.deepEqual(await kinds(sprite.killSession(id, 'TERM', '10s')), ['signal', 'exited', 'complete']);
await ended;
assert.deepEqual(await sprite.listSessions(), []);

// Files.
const fs = sprite.filesystem('/tmp');
await fs.writeFile('folder/file.txt', 'hello', { mode: 0o640 });
assert.equal(await fs.readFile('folder/file.txt', 'utf8'), 'hello');
assert.deepEqual(await fs.readdir('folder'), ['file.txt']);
assert.equal((await fs.stat('folder/file.txt')).mode, 0o640);
assert.equal((await sprite.execFileHTTP('cat', ['/tmp/folder/file.txt'])).stdout, 'hello');
await fs.copyFile('folder', 'copy', { recursive: true });
await fs.rename('copy/file.txt', 'copy/moved.txt');
await fs.chmod('copy/moved.txt', 0o600);
assert.equal((await fs.stat('copy/moved.txt')).mode, 0o600);
await assert.rejects(fs.rm('copy'), (error) => error.code === 'ENOTEMPTY');
await fs.rm('copy', { recursive: true });
assert.equal(await fs.exists('copy/moved.txt'), false);

// Checkpoints.
await fs.writeFile('x', '');
await sprite.execFileHTTP('sh', ['-c', 'echo one > kept']);
assert.equal((await kinds(sprite.createCheckpoint('clean'))).at(-1), 'complete');
assert.deepEqual((await sprite.listCheckpoints()).map((c) => [c.id, c.comment]), [['v0', 'clean']]);
await sprite.execFileHTTP('sh', ['-c', 'echo two > kept']);
assert.equal((await kinds(sprite.restoreCheckpoint('v0'))).at(-1), 'complete');
assert.equal((await sprite.execFileHTTP('cat', ['kept'])).stdout, 'one\n');
assert.equal((await sprite.getCheckpoint('v0')).comment, 'clean');

// Policy, and the end.
await sprite.updateNetworkPolicy({ rules: [{ domain: 'example.org', action: 'allow' }] });
assert.equal((await sprite.getNetworkPolicy()).rules[0].domain, 'example.org');
assert.equal((await sprite.restart()).spriteName, 'js-box');
await sprite.deleteService('web');
assert.deepEqual(await sprite.listServices(), []);
await sprite.delete();
assert.deepEqual(await client.listAllSprites('js-'), []);
process.exit(0); // Sockets of sessions may be open.
