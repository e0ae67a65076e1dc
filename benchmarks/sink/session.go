package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Group is the replies to all commands that arrived together.
type group struct {
	due  time.Time
	text []byte
}

// Session is one connection. Replies are gathered while commands are at hand, and leave in one write.
type session struct {
	net.Conn
	reader    *bufio.Reader
	offered   offer
	counts    *tally
	replies   []byte
	late      chan group // replies on their way, if the relay is far away
	known     bool       // logged in, or nobody asks for it
	recipient string
	body      body
	lineCap   []byte
}

func newSession(connection net.Conn, offered offer, counts *tally) *session {
	s := &session{Conn: connection, offered: offered, counts: counts, reader: bufio.NewReaderSize(connection, 128<<10)}
	s.known = offered.login == ""
	if offered.delay > 0 {
		s.late = make(chan group, 10_000)
		go s.carry()
	}
	return s
}

// Carry brings each group of replies when it is due; groups overlap, as on a long line.
func (s *session) carry() {
	for g := range s.late {
		time.Sleep(time.Until(g.due))
		if _, err := s.Write(g.text); err != nil {
			return
		}
	}
}

func (s *session) flush() error {
	if len(s.replies) == 0 {
		return nil
	}
	var err error
	if s.late != nil {
		s.late <- group{time.Now().Add(s.offered.delay), bytes.Clone(s.replies)}
	} else {
		_, err = s.Write(s.replies)
	}
	s.replies = s.replies[:0]
	return err
}

func (s *session) reply(text string) { s.replies = append(append(s.replies, text...), "\r\n"...) }

// Line gives the next line without its end; it is valid until the next call.
func (s *session) line() ([]byte, error) {
	if s.reader.Buffered() == 0 {
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
	line, err := s.reader.ReadSlice('\n')
	if err != nil && err == bufio.ErrBufferFull {
		panic("a line of more than 128 KiB")
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (s *session) serve() {
	defer s.Close()
	if s.late != nil {
		defer func() { close(s.late) }()
	}
	s.reply("220 sink ESMTP")
	for {
		line, err := s.line()
		if err != nil || !s.command(line) {
			return
		}
	}
}

// Command answers one command.
//
// Returns whether the session goes on.
func (s *session) command(line []byte) bool {
	verb, argument, _ := strings.Cut(string(line), " ")
	switch strings.ToUpper(verb) {
	case "EHLO", "HELO":
		s.hello()
	case "MAIL", "RSET", "NOOP":
		s.recipient = ""
		if !s.known && strings.EqualFold(verb, "MAIL") {
			s.reply("530 5.7.0 Authentication required")
			return true
		}
		s.reply("250 2.1.0 Ok")
	case "AUTH":
		s.logIn(argument)
	case "RCPT":
		if !s.known {
			s.reply("503 5.5.1 no sender")
			return true
		}
		_, rest, _ := strings.Cut(argument, "<")
		s.recipient, _, _ = strings.Cut(rest, ">")
		s.reply("250 2.1.5 Ok")
	case "DATA":
		if s.recipient == "" {
			s.reply("503 5.5.1 no recipient")
			return true
		}
		s.reply("354 Go ahead")
		return s.data() == nil
	case "BDAT":
		return s.chunk(argument) == nil
	case "STARTTLS":
		return s.encrypt() == nil
	case "QUIT":
		s.reply("221 2.0.0 Bye")
		_ = s.flush()
		return s.late != nil // the farewell is on its way; the client closes
	default:
		s.reply("502 5.5.2 unknown command")
	}
	return true
}

func (s *session) hello() {
	lines := []string{"sink", "8BITMIME", "SIZE 50000000", "ENHANCEDSTATUSCODES"}
	if s.offered.pipelining {
		lines = append(lines, "PIPELINING")
	}
	if s.offered.chunking {
		lines = append(lines, "CHUNKING")
	}
	if s.bare() {
		lines = append(lines, "STARTTLS")
	} else if s.offered.login != "" {
		lines = append(lines, "AUTH PLAIN")
	}
	for i, line := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		s.reply("250" + separator + line)
	}
}

// Bare says whether TLS is still to come.
func (s *session) bare() bool {
	_, encrypted := s.Conn.(*tls.Conn)
	return s.offered.startTLS != nil && !encrypted
}

// LogIn answers AUTH PLAIN with its initial response (RFC 4954, RFC 4616); the benchmark's senders use no other form.
func (s *session) logIn(argument string) {
	method, response, _ := strings.Cut(argument, " ")
	said, err := base64.StdEncoding.DecodeString(response)
	name, password, _ := strings.Cut(s.offered.login, ":")
	switch {
	case s.offered.login == "" || s.bare() || !strings.EqualFold(method, "PLAIN") || err != nil:
		s.reply("504 5.5.4 not offered so")
	case string(said) == "\x00"+name+"\x00"+password:
		s.known = true
		s.reply("235 2.7.0 Authentication successful")
	default:
		s.reply("535 5.7.8 Authentication credentials invalid")
	}
}

func (s *session) encrypt() error {
	if s.offered.startTLS == nil || s.late != nil {
		s.reply("502 5.5.1 not offered") // behind a delay TLS is implicit
		return nil
	}
	s.reply("220 2.0.0 Go ahead")
	if err := s.flush(); err != nil {
		return err
	}
	s.Conn = tls.Server(s.Conn, s.offered.startTLS)
	s.reader.Reset(s.Conn)
	return nil
}

func (s *session) data() error {
	s.body.begin()
	for {
		line, err := s.line()
		if err != nil {
			return err
		}
		if len(line) > 0 && line[0] == '.' {
			if len(line) == 1 {
				break
			}
			line = line[1:]
		}
		s.body.line(line)
	}
	s.accept()
	return nil
}

// Chunk takes a whole message in one chunk (RFC 3030); the benchmark's senders use no other.
func (s *session) chunk(argument string) error {
	size, last, _ := strings.Cut(argument, " ")
	length, err := strconv.Atoi(size)
	if err != nil || !strings.EqualFold(last, "LAST") {
		s.reply("501 5.5.4 one chunk a message here: BDAT size LAST")
		return nil
	}
	if cap(s.lineCap) < length {
		s.lineCap = make([]byte, length*2)
	}
	message := s.lineCap[:length]
	if _, err := io.ReadFull(s.reader, message); err != nil {
		return err
	}
	if s.recipient == "" {
		s.reply("503 5.5.1 no recipient")
		return nil
	}
	s.body.begin()
	for len(message) > 0 {
		line, rest, _ := bytes.Cut(message, []byte("\n"))
		s.body.line(bytes.TrimSuffix(line, []byte("\r")))
		message = rest
	}
	s.accept()
	return nil
}

func (s *session) accept() {
	s.counts.add(s.body.hash(s.recipient))
	s.recipient = ""
	s.reply("250 2.0.0 Ok: queued as 0123456789")
}
