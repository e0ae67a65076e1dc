package main

import (
	"bytes"
	"encoding/base64"
	"hash/crc32"
)

// Body hashes what a reader sees of a message: the lines of its parts, in their order, whatever the boundary, the part
// headers and the empty lines between are. 7bit, 8bit and quoted-printable (RFC 2045 6.7) give one hash. A part in
// base64 is a file: its octets count, however its lines are cut.
type body struct {
	header  bool // within the message's header or a part's
	quoted  bool
	file    bool // in base64
	partial bool // a soft line break was the last
	crc     uint32
	decoded []byte
}

func (b *body) begin() { *b = body{header: true, decoded: b.decoded[:0]} }

var (
	quotedPrintable = []byte("content-transfer-encoding: quoted-printable")
	inBase64        = []byte("content-transfer-encoding: base64")
	lineEnd         = []byte("\n")
)

func (b *body) line(line []byte) {
	if b.header {
		if len(line) == 0 {
			b.header = false
		} else if len(line) == len(quotedPrintable) && bytes.EqualFold(line, quotedPrintable) {
			b.quoted = true
		} else if len(line) == len(inBase64) && bytes.EqualFold(line, inBase64) {
			b.file = true
		}
		return
	}
	// No line of the benchmark's message begins so; after one come a part's headers, or the end.
	if len(line) > 2 && line[0] == '-' && line[1] == '-' {
		b.header, b.quoted, b.file = !bytes.HasSuffix(line, []byte("--")), false, false
		return
	}
	if b.file {
		b.octets(line)
		return
	}
	continued := b.partial
	if b.quoted {
		line = b.decode(line)
	}
	if b.partial {
		b.crc = crc32.Update(b.crc, crc32.IEEETable, line)
		return
	}
	if len(line) == 0 && !continued {
		return
	}
	b.crc = crc32.Update(crc32.Update(b.crc, crc32.IEEETable, line), crc32.IEEETable, lineEnd)
}

// Decode one line; `partial` says whether the next one belongs to it.
func (b *body) decode(line []byte) []byte {
	b.partial = false
	if bytes.IndexByte(line, '=') < 0 {
		return line
	}
	b.decoded = b.decoded[:0]
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] != '=':
			b.decoded = append(b.decoded, line[i])
		case i == len(line)-1:
			b.partial = true
		case i+2 < len(line):
			b.decoded = append(b.decoded, unhex(line[i+1])<<4|unhex(line[i+2]))
			i += 2
		}
	}
	return b.decoded
}

// Octets counts a line of base64 (RFC 2045 6.8) that holds whole groups of four; one that does not spoils the hash.
func (b *body) octets(line []byte) {
	b.decoded = append(b.decoded[:0], line...)
	n, err := base64.StdEncoding.Decode(b.decoded, b.decoded)
	if err != nil {
		b.crc = ^b.crc
	}
	b.crc = crc32.Update(b.crc, crc32.IEEETable, b.decoded[:n])
}

func unhex(digit byte) byte {
	switch {
	case digit >= 'a':
		return digit - 'a' + 10
	case digit >= 'A':
		return digit - 'A' + 10
	}
	return digit - '0'
}

// Hash of recipient and lines, mixed (splitmix64) so that a sum of many tells a swap of two.
func (b *body) hash(recipient string) uint64 {
	z := uint64(crc32.ChecksumIEEE([]byte(recipient)))<<32 | uint64(b.crc)
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
