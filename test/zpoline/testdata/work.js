// Work for a JIT, threads, children and sockets; prints ok.
const assert = require('assert')
const { execFileSync } = require('child_process')
const fs = require('fs')
const http = require('http')
const { Worker, isMainThread, parentPort } = require('worker_threads')

function work (n) {
  let s = 0
  for (let i = 0; i < n; i++) s = (s * 31 + i) % 1000003
  return s
}

if (!isMainThread) {
  parentPort.postMessage(work(2e6))
} else {
  const want = work(2e6)
  const workers = [1, 2, 3].map(() => new Promise((resolve, reject) => {
    const w = new Worker(__filename)
    w.on('message', resolve)
    w.on('error', reject)
  }))
  const served = new Promise((resolve, reject) => {
    const server = http.createServer((_, answer) => answer.end('served')).listen(0, '127.0.0.1', () => {
      http.get({ host: '127.0.0.1', port: server.address().port }, answer => {
        answer.on('data', d => { server.close(); resolve(d.toString()) })
      }).on('error', reject)
    })
  })
  assert.strictEqual(execFileSync('/bin/echo', ['child']).toString(), 'child\n')
  assert(fs.readFileSync('/proc/self/maps', 'utf8').includes('libpoemq-zpoline'))
  Promise.all([...workers, served]).then(r => {
    assert.deepStrictEqual(r, [want, want, want, 'served'])
    console.log('ok')
  })
}
