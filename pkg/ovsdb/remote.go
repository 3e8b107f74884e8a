package ovsdb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Remote is an active OVSDB connection method, see ovsdb(7).
type Remote struct {
	method  string // "unix", "tcp" or "ssl"
	address string // a path, or host:port
}

// ParseRemotes reads a comma-separated list of unix:PATH, tcp:HOST:PORT and
// ssl:HOST:PORT. An IPv6 host is in brackets. White space around the entries
// is ignored; there must be at least one.
func ParseRemotes(list string) ([]Remote, error) {
	var remotes []Remote
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		r, err := parseRemote(entry)
		if err != nil {
			return nil, fmt.Errorf("ovsdb remote %q: %w", entry, err)
		}
		remotes = append(remotes, r)
	}
	if len(remotes) == 0 {
		return nil, fmt.Errorf("ovsdb remotes %q: none given", list)
	}
	return remotes, nil
}

func parseRemote(entry string) (Remote, error) {
	method, address, _ := strings.Cut(entry, ":")
	switch method {
	case "unix":
		if address == "" {
			return Remote{}, errors.New("no path")
		}
		return Remote{method, address}, nil
	case "tcp", "ssl":
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return Remote{}, err
		}
		if host == "" {
			return Remote{}, errors.New("no host")
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return Remote{}, fmt.Errorf("port %q is not 1 to 65535", port)
		}
		return Remote{method, address}, nil
	}
	return Remote{}, errors.New("want unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT")
}

// String returns the form that ParseRemotes reads.
func (r Remote) String() string { return r.method + ":" + r.address }

// local tells whether the remote is a socket of this machine, where a server
// that died is back soon, and cannot be half alive.
func (r Remote) local() bool { return r.method == "unix" }

// TLSFiles names the PEM files for ssl remotes, as ovs-pki(8) makes them. They
// are read for each connection, so they may be replaced at any time.
type TLSFiles struct {
	PrivateKey    string
	Certificate   string
	CACertificate string
}

// dialTimeout bounds how long connecting may take, TLS included.
const dialTimeout = 10 * time.Second

func (r Remote) dial(ctx context.Context, files *TLSFiles) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	if r.method == "unix" {
		return d.DialContext(ctx, "unix", r.address)
	}
	if r.method == "tcp" {
		return d.DialContext(ctx, "tcp", r.address)
	}
	config, err := files.config()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{NetDialer: &d, Config: config}).DialContext(ctx, "tcp", r.address)
}

// config reads the files. As in the C library, the server's certificate must
// be signed by the CA, but need not name the host: it authenticates a role in
// the cluster, not an address.
func (f *TLSFiles) config() (*tls.Config, error) {
	if f == nil {
		return nil, errors.New("no private key, certificate and CA certificate given")
	}
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.PrivateKey)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(f.CACertificate)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate", f.CACertificate)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		Certificates:       []tls.Certificate{pair},
		InsecureSkipVerify: true, // VerifyConnection checks the chain, without the host name.
		VerifyConnection: func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{
				Roots:         roots,
				Intermediates: x509.NewCertPool(),
				KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			}
			for _, c := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
	}, nil
}
