// Node's http: "server PORT" answers a POST with its body's SHA-256 and a GET
// with a body of known content; "client PORT" makes 200 requests of both kinds.
'use strict';
const http = require('http');
const crypto = require('crypto');

const [role, port] = [process.argv[2], Number(process.argv[3])];
const sum = (data) => crypto.createHash('sha256').update(data).digest('hex');
const body = (n) => Buffer.alloc(1000 + n * 997, `request ${n} `);

if (role === 'server') {
  http.createServer((req, res) => {
    if (req.method === 'GET') {
      res.end(body(Number(req.url.slice(1))));
      return;
    }
    const hash = crypto.createHash('sha256');
    req.on('data', (chunk) => hash.update(chunk));
    req.on('end', () => res.end(hash.digest('hex')));
  }).listen(port, '127.0.0.1', () => console.log('listening'));
} else {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 10 });
  const request = (method, n) => new Promise((resolve, reject) => {
    const req = http.request({ host: '127.0.0.1', port, method, path: `/${n}`, agent }, (res) => {
      const chunks = [];
      res.on('data', (chunk) => chunks.push(chunk));
      res.on('end', () => {
        const got = Buffer.concat(chunks);
        const ok = method === 'GET' ? got.equals(body(n)) : got.toString() === sum(body(n));
        ok ? resolve() : reject(new Error(`${method} ${n}: wrong answer of ${got.length} bytes`));
      });
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end(method === 'GET' ? undefined : body(n));
  });
  const all = [];
  for (let n = 0; n < 100; n++) all.push(request('GET', n), request('POST', n));
  Promise.all(all).then(() => {
    agent.destroy();
    console.log(`${all.length} right answers`);
  }).catch((err) => {
    console.error(err);
    process.exit(1);
  });
}
