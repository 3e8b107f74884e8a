package ovsdb

import (
	"strings"
	"testing"
	"time"
)

func TestParseRemotes(t *testing.T) {
	tests := []struct{ list, want string }{
		{"unix:/run/ovn/ovnsb_db.sock", "unix:/run/ovn/ovnsb_db.sock"},
		{"unix:relative.sock", "unix:relative.sock"},
		{"tcp:10.0.0.1:6642", "tcp:10.0.0.1:6642"},
		{"ssl:[fd00::1]:6642", "ssl:[fd00::1]:6642"},
		{"ssl:[fe80::1%eth0]:6642", "ssl:[fe80::1%eth0]:6642"},
		{"tcp:sb.example.net:1", "tcp:sb.example.net:1"},
		{" ssl:a:1 , ssl:b:65535,,", "ssl:a:1 ssl:b:65535"},
		{"", `ovsdb remotes "": none given`},
		{" , ", `ovsdb remotes " , ": none given`},
		{"unix:", `ovsdb remote "unix:": no path`},
		{"tcp:10.0.0.1", `ovsdb remote "tcp:10.0.0.1": address 10.0.0.1: missing port in address`},
		{"tcp:fd00::1:6642", `ovsdb remote "tcp:fd00::1:6642": address fd00::1:6642: too many colons in address`},
		{"tcp::6642", `ovsdb remote "tcp::6642": no host`},
		{"tcp:a:0", `ovsdb remote "tcp:a:0": port "0" is not 1 to 65535`},
		{"tcp:a:65536", `ovsdb remote "tcp:a:65536": port "65536" is not 1 to 65535`},
		{"tcp:a:http", `ovsdb remote "tcp:a:http": port "http" is not 1 to 65535`},
		{"ptcp:6642", `ovsdb remote "ptcp:6642": want unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT`},
		{"tcp:a:1,nonsense", `ovsdb remote "nonsense": want unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT`},
	}
	for _, test := range tests {
		remotes, err := ParseRemotes(test.list)
		var texts []string
		for _, r := range remotes {
			texts = append(texts, r.String())
		}
		got := strings.Join(texts, " ")
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("ParseRemotes(%q) = %s, want %s", test.list, got, test.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	remotes := func(list string) []Remote {
		r, err := ParseRemotes(list)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	between := func(name string, got, low, high time.Duration) {
		t.Helper()
		if got < low || got > high {
			t.Errorf("%s: waits %v, want %v to %v", name, got, low, high)
		}
	}
	b := newBackoff(remotes("tcp:a:1,tcp:b:1,unix:/c"))
	for range 3 {
		between("network: one try per remote", b.next(), 0, 0)
	}
	for _, wait := range []time.Duration{1, 2, 4, 8, 8, 8} {
		between("network", b.next(), wait*time.Second*3/4, wait*time.Second)
	}
	b.lost(7 * time.Second)
	between("network: lost soon", b.next(), 6*time.Second, 8*time.Second)
	b.lost(8 * time.Second)
	between("network: lost late", b.next(), 0, 0)

	b = newBackoff(remotes("unix:/a"))
	between("local", b.next(), 0, 0)
	between("local", b.next(), 7*time.Millisecond, 10*time.Millisecond)
	away := time.Duration(0)
	for range 100 {
		wait := b.next()
		if wait > time.Second {
			t.Fatalf("local: waits %v", wait)
		}
		if limit := 13*time.Millisecond + away/2; wait > limit {
			t.Errorf("local: after %v waits %v, want at most %v", away, wait, limit)
		}
		away += wait
	}
	between("local: at last", b.next(), 3*time.Second/4, time.Second)
}
