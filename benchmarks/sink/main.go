// Sink takes mail as fast as it can, counts it, and sums a hash of each message.
//
// It prints its port, a line at the first message, a line at the last one that it expects, and at SIGTERM a line
// with its counts; each line is JSON. See README.md of ../ for what is measured with it.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Offer is what the sink says and how fast it says it.
type offer struct {
	pipelining, chunking bool
	startTLS             *tls.Config
	login                string        // user:password; no mail is taken without it
	delay                time.Duration // a round trip to this relay
}

// Tally is what all connections add to.
type tally struct {
	mutex       sync.Mutex
	accepted    int
	expected    int
	sum         uint64
	first, last time.Time
}

func (t *tally) add(hash uint64) {
	now := time.Now()
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.accepted++
	t.sum += hash
	t.last = now
	if t.accepted == 1 {
		t.first = now
		say(map[string]any{"event": "first"})
	}
	if t.accepted == t.expected {
		say(map[string]any{"event": "last"})
	}
}

func say(line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func (t *tally) end() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	say(map[string]any{
		"event": "end", "accepted": t.accepted, "hash": fmt.Sprintf("%016x", t.sum),
		"seconds": t.last.Sub(t.first).Seconds(), "cpu_seconds": cpu.Seconds(),
	})
}

func main() {
	expected := flag.Int("expect", 0, "messages after which the line `last` is printed")
	delay := flag.Duration("delay", 0, "how far away the relay is: each reply leaves so much after its command came")
	pipelining := flag.Bool("pipelining", true, "offer PIPELINING")
	chunking := flag.Bool("chunking", false, "offer CHUNKING")
	encryption := flag.String("tls", "none", "none, implicit or starttls; the certificate is self-made")
	login := flag.String("login", "", "user:password: offer AUTH PLAIN, under TLS if there is TLS, and ask for it")
	flag.Parse()

	offered := offer{pipelining: *pipelining, chunking: *chunking, delay: *delay, login: *login}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	switch *encryption {
	case "none":
	case "implicit":
		listener = tls.NewListener(listener, selfMade())
	case "starttls":
		offered.startTLS = selfMade()
	default:
		fmt.Fprintln(os.Stderr, "sink: -tls is none, implicit or starttls")
		os.Exit(64)
	}
	counts := &tally{expected: *expected}
	say(map[string]any{"event": "listening", "port": port})
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				panic(err)
			}
			go newSession(connection, offered, counts).serve()
		}
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	counts.end()
}
