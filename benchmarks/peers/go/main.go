// A sender as one would write it in Go: pages of 1,000 recipients, html/template and text/template for each, the pool of
// connections that listmonk uses, and a durable ledger row for each mail, 500 a transaction.
//
// DATABASE_URL, SMTP_PORT, TEMPLATE (a JSON file), CONNECTIONS and WORKERS are its environment.
package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	html "html/template"
	"log"
	"net/textproto"
	"os"
	"regexp"
	"strconv"
	"sync"
	text "text/template"
	"time"

	"github.com/knadh/smtppool/v2"
	"github.com/lib/pq"
)

const (
	pageSize  = 1000
	batchSize = 500
)

type recipient struct {
	id    int64
	email string
	row   map[string]string
}

type message struct {
	subject, text *text.Template
	html          *html.Template
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func number(name string) int { return must(strconv.Atoi(os.Getenv(name))) }

// The templates name columns as Jinja does: {{ first_name }}.
func compiled() message {
	var source struct{ Subject, Text, HTML string }
	check(json.Unmarshal(must(os.ReadFile(os.Getenv("TEMPLATE"))), &source))
	dotted := func(s string) string {
		return regexp.MustCompile(`\{\{ (\w+) \}\}`).ReplaceAllString(s, "{{ .$1 }}")
	}
	return message{
		subject: text.Must(text.New("subject").Parse(dotted(source.Subject))),
		text:    text.Must(text.New("text").Parse(dotted(source.Text))),
		html:    html.Must(html.New("html").Parse(dotted(source.HTML))),
	}
}

func (m message) mail(r recipient) smtppool.Email {
	var subject, plain, rich bytes.Buffer
	check(m.subject.Execute(&subject, r.row))
	check(m.text.Execute(&plain, r.row))
	check(m.html.Execute(&rich, r.row))
	headers := textproto.MIMEHeader{}
	headers.Set("List-Unsubscribe", "<https://example.com/u/"+r.row["token"]+">")
	headers.Set("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
	return smtppool.Email{
		From: "News <news@example.com>", To: []string{r.email}, Subject: subject.String(),
		Text: plain.Bytes(), HTML: rich.Bytes(), Headers: headers,
	}
}

func read(db *sql.DB, into chan<- recipient) {
	defer close(into)
	var last int64
	for {
		rows := must(db.Query("SELECT id, email, first_name, plan, renews, token FROM recipients"+
			" WHERE id > $1 ORDER BY id LIMIT $2", last, pageSize))
		found := 0
		for rows.Next() {
			var r recipient
			var name, plan, renews, token string
			check(rows.Scan(&r.id, &r.email, &name, &plan, &renews, &token))
			r.row = map[string]string{"first_name": name, "plan": plan, "renews": renews, "token": token}
			last = r.id
			found++
			into <- r
		}
		check(rows.Err())
		check(rows.Close())
		if found == 0 {
			return
		}
	}
}

func record(db *sql.DB, sent <-chan int64) {
	batch := make([]int64, 0, batchSize)
	write := func() {
		if len(batch) == 0 {
			return
		}
		transaction := must(db.Begin())
		copying := must(transaction.Prepare(pq.CopyIn("peer_ledger", "recipient", "status", "code", "response")))
		for _, id := range batch {
			must(copying.Exec(id, 2, 250, "2.0.0 Ok"))
		}
		must(copying.Exec())
		check(copying.Close())
		check(transaction.Commit())
		batch = batch[:0]
	}
	for id := range sent {
		if batch = append(batch, id); len(batch) == batchSize {
			write()
		}
	}
	write()
}

func main() {
	templates := compiled()
	db := must(sql.Open("postgres", os.Getenv("DATABASE_URL")+"?sslmode=disable"))
	pool := must(smtppool.New(smtppool.Opt{
		Host: "127.0.0.1", Port: number("SMTP_PORT"), MaxConns: number("CONNECTIONS"),
		IdleTimeout: 30 * time.Second, PoolWaitTimeout: 30 * time.Second,
	}))
	recipients, sent := make(chan recipient, 2*pageSize), make(chan int64, 2*pageSize)
	var workers, ledger sync.WaitGroup
	for range number("WORKERS") {
		workers.Go(func() {
			for r := range recipients {
				check(pool.Send(templates.mail(r)))
				sent <- r.id
			}
		})
	}
	ledger.Go(func() { record(db, sent) })
	read(db, recipients)
	workers.Wait()
	close(sent)
	ledger.Wait()
}
