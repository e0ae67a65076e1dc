// The design that Mailfleet replaces: a queue of batches of 100 in Redis (BullMQ), nodemailer's pool of connections, and a
// durable ledger INSERT for each batch.
//
// DATABASE_URL, REDIS_URL, SMTP_PORT, TEMPLATE (a JSON file), CONNECTIONS and WORKERS (jobs at once) are its environment.
const fs = require('node:fs');
const { Queue, Worker } = require('bullmq');
const nodemailer = require('nodemailer');
const { Pool } = require('pg');

const BATCH = 100;
const env = process.env;

const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' };
const escaped = (value) => value.replace(/[&<>"']/g, (c) => ENTITIES[c]);
const asIs = (value) => value;

function compiled(source, write) {
  const parts = source.split(/\{\{ (\w+) \}\}/);
  return (row) => parts.map((part, i) => (i % 2 ? write(row[part]) : part)).join('');
}

const template = JSON.parse(fs.readFileSync(env.TEMPLATE, 'utf8'));
const subject = compiled(template.subject, asIs);
const text = compiled(template.text, asIs);
const html = compiled(template.html, escaped);

function mail(row) {
  return {
    from: 'News <news@example.com>',
    to: row.email,
    subject: subject(row),
    text: text(row),
    html: html(row),
    headers: {
      'List-Unsubscribe': `<https://example.com/u/${row.token}>`,
      'List-Unsubscribe-Post': 'List-Unsubscribe=One-Click',
    },
  };
}

async function main() {
  const pool = new Pool({ connectionString: env.DATABASE_URL, max: 10 });
  const connection = { url: env.REDIS_URL, maxRetriesPerRequest: null };
  const transport = nodemailer.createTransport({
    host: '127.0.0.1',
    port: Number(env.SMTP_PORT),
    ignoreTLS: true,
    pool: true,
    maxConnections: Number(env.CONNECTIONS),
    maxMessages: Infinity,
  });
  const queue = new Queue('mail', { connection });
  let queued = 0;
  let sent = 0;
  let allQueued = false;
  let finish;
  const finished = new Promise((resolve) => { finish = resolve; });

  async function send(job) {
    const { rows } = await pool.query(
      'SELECT id, email, first_name, plan, renews, token FROM recipients WHERE id BETWEEN $1 AND $2 ORDER BY id',
      [job.data.first, job.data.last],
    );
    const replies = await Promise.all(rows.map((row) => transport.sendMail(mail(row)).then((info) => info.response)));
    await pool.query(
      'INSERT INTO peer_ledger (recipient, status, code, response)'
      + ' SELECT r, 2, 250, t FROM unnest($1::bigint[], $2::text[]) u (r, t)',
      [rows.map((row) => row.id), replies],
    );
    sent += rows.length;
  }

  const worker = new Worker('mail', send, { connection, concurrency: Number(env.WORKERS) });
  worker.on('completed', () => { if (allQueued && sent === queued) finish(); });
  worker.on('failed', (_, error) => { console.error(error); process.exit(1); });
  for (let last = 0; ;) {
    const { rows } = await pool.query('SELECT id FROM recipients WHERE id > $1 ORDER BY id LIMIT $2', [last, BATCH]);
    if (!rows.length) break;
    last = rows.at(-1).id;
    queued += rows.length;
    await queue.add('batch', { first: rows[0].id, last }, { removeOnComplete: true });
  }
  allQueued = true;
  if (sent !== queued) await finished;
  process.exit(0);
}

main();
