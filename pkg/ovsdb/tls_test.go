package ovsdb_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
)

// TestTLSRoles talks to a Southbound database as OVN deploys it: TLS, and the
// role ovn-controller, which may write its own chassis only.
func TestTLSRoles(t *testing.T) {
	pki := ovsdbtest.NewPKI(t)
	serverKey, serverCert := pki.Issue("server")
	s := ovsdbtest.Start(t, ovsdbtest.Southbound,
		"--private-key="+serverKey, "--certificate="+serverCert, "--ca-cert="+pki.CA,
		"--remote=db:OVN_Southbound,SB_Global,connections")
	s.Transact(
		ovsdb.InsertRow("RBAC_Permission", "chassis", map[string]any{
			"table": "Chassis", "authorization": []string{"name"}, "insert_delete": true, "update": []string{"nb_cfg", "external_ids"},
		}),
		ovsdb.InsertRow("RBAC_Permission", "encap", map[string]any{
			"table": "Encap", "authorization": []string{"chassis_name"}, "insert_delete": true, "update": []string{"options"},
		}),
		ovsdb.InsertRow("RBAC_Role", "", map[string]any{
			"name": "ovn-controller", "permissions": map[string]ovsdb.Ref{"Chassis": "chassis", "Encap": "encap"},
		}),
		ovsdb.InsertRow("Connection", "connection", map[string]any{"target": "pssl:0:127.0.0.1", "role": "ovn-controller"}),
		ovsdb.InsertRow("SB_Global", "", map[string]any{"connections": []ovsdb.Ref{"connection"}}))
	remote := "ssl:127.0.0.1:" + s.Port()

	key, cert := pki.Issue("chassis-1")
	config := southbound(remote)
	config.TLS = &ovsdb.TLSFiles{PrivateKey: key, Certificate: cert, CACertificate: pki.CA}
	config.Tables = []ovsdb.Table{{Name: "Chassis", Row: sbdb.Chassis{}}}
	f := follow(t, config)
	f.connected()
	chassis := func(name string) []ovsdb.Operation {
		return []ovsdb.Operation{
			ovsdb.InsertRow("Encap", "e", map[string]any{"type": "geneve", "ip": "10.0.0.1", "chassis_name": name}),
			ovsdb.InsertRow("Chassis", "", map[string]any{"name": name, "encaps": []ovsdb.Ref{"e"}}),
		}
	}
	uuid := f.must(chassis("chassis-1")...)[1].UUID.GoUUID
	f.must(ovsdb.SetPairs("Chassis", uuid, "external_ids", map[string]string{"a": "b"}))
	if row := f.rows["Chassis"][uuid].(*sbdb.Chassis); row.ExternalIDs["a"] != "b" {
		t.Errorf("external_ids of our chassis: %v", row.ExternalIDs)
	}
	for what, ops := range map[string][]ovsdb.Operation{
		"another chassis":        chassis("chassis-2"),
		"a column not permitted": {ovsdb.UpdateRow("Chassis", uuid, map[string]any{"hostname": "evil"})},
		"a table not permitted":  {addressSet("evil")},
	} {
		_, err := f.Transact(f.ctx, ops...)
		var refused *ovsdb.TransactError
		if !errors.As(err, &refused) || refused.Code != "permission error" || !strings.Contains(err.Error(), ops[0].Table) {
			t.Errorf("%s: %v, want a permission error that names the table", what, err)
		}
	}

	t.Run("strangers", func(t *testing.T) {
		stranger := ovsdbtest.NewPKI(t)
		strangerKey, strangerCert := stranger.Issue("chassis-1")
		for name, test := range map[string]struct {
			files ovsdb.TLSFiles
			want  string
		}{
			"server is not signed by our CA": {ovsdb.TLSFiles{PrivateKey: key, Certificate: cert, CACertificate: stranger.CA}, "signed by unknown authority"},
			"we are not signed by its CA":    {ovsdb.TLSFiles{PrivateKey: strangerKey, Certificate: strangerCert, CACertificate: pki.CA}, "remote error: tls: "},
			"key of another certificate":     {ovsdb.TLSFiles{PrivateKey: strangerKey, Certificate: cert, CACertificate: pki.CA}, "private key does not match"},
			"no such file":                   {ovsdb.TLSFiles{PrivateKey: "/nonexistent", Certificate: cert, CACertificate: pki.CA}, "/nonexistent: no such file"},
			"CA file without certificate":    {ovsdb.TLSFiles{PrivateKey: key, Certificate: cert, CACertificate: key}, key + ": no certificate"},
		} {
			config.TLS = &test.files
			f := follow(t, config)
			wait(t, name+" to be refused", func() bool { return f.log.count("database connection failed", test.want) > 0 })
		}
		config.TLS = nil
		f := follow(t, config)
		wait(t, "refusal without files", func() bool { return f.log.count("no private key, certificate and CA certificate given") > 0 })
		f.SetTLS(&ovsdb.TLSFiles{PrivateKey: key, Certificate: cert, CACertificate: pki.CA})
		f.connected()
	})

	t.Run("renewed files", func(t *testing.T) {
		dir := t.TempDir()
		files := ovsdb.TLSFiles{
			PrivateKey: filepath.Join(dir, "key"), Certificate: filepath.Join(dir, "cert"), CACertificate: pki.CA,
		}
		config.TLS = &files
		f := follow(t, config)
		wait(t, "failure without files", func() bool { return f.log.count("database connection failed", "no such file") > 0 })
		for from, to := range map[string]string{cert: files.Certificate, key: files.PrivateKey} {
			if err := os.Link(from, to); err != nil {
				t.Fatal(err)
			}
		}
		f.connected()
	})
}

// TestTLSWithOVSPKI uses certificates made by ovs-pki(8), whose form has not
// changed in a decade.
func TestTLSWithOVSPKI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pki := func(args ...string) {
		t.Helper()
		cmd := exec.Command("ovs-pki", append([]string{"--dir=" + filepath.Join(dir, "pki"), "--log=" + filepath.Join(dir, "log")}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ovs-pki %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	pki("init")
	pki("req+sign", "server", "switch")
	pki("req+sign", "client", "switch")
	ca := filepath.Join(dir, "pki/switchca/cacert.pem")
	s := ovsdbtest.Start(t, ovsdbtest.Southbound,
		"--private-key="+filepath.Join(dir, "server-privkey.pem"), "--certificate="+filepath.Join(dir, "server-cert.pem"),
		"--ca-cert="+ca, "--remote=pssl:0:127.0.0.1")
	config := southbound("ssl:127.0.0.1:" + s.Port())
	config.TLS = &ovsdb.TLSFiles{
		PrivateKey: filepath.Join(dir, "client-privkey.pem"), Certificate: filepath.Join(dir, "client-cert.pem"), CACertificate: ca,
	}
	f := follow(t, config)
	f.connected()
	f.must(addressSet("a"))
}
