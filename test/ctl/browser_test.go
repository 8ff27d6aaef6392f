package ctl

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// browser is a headless Chromium that shows one page, steered by its DevTools
// protocol. Names are resolved to nothing: what it shows comes from loopback.
type browser struct {
	t    *testing.T
	conn *websocket.Conn
	last int // number of the last command
}

// browse opens url. The browser ends with the test.
func browse(t *testing.T, chromium, url, dir string) *browser {
	t.Helper()
	c := exec.Command(chromium,
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--remote-debugging-port=0", "--remote-allow-origins=*",
		"--user-data-dir="+dir, "--window-size=1400,1300", "--hide-scrollbars", url)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // and what it has started
		_ = c.Wait()
	})
	b := &browser{t: t}
	late := time.Now().Add(time.Minute)
	for ; b.conn == nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("chromium opens no page within a minute")
		}
		b.conn = attach(filepath.Join(dir, "DevToolsActivePort"), url)
	}
	t.Cleanup(func() { b.conn.Close() })
	return b
}

// attach connects to the page that shows url; nil: there is none yet.
func attach(portFile, url string) *websocket.Conn {
	text, err := os.ReadFile(portFile)
	if err != nil {
		return nil
	}
	port, _, _ := strings.Cut(string(text), "\n")
	list, err := fetch("http://127.0.0.1:" + port + "/json/list")
	if err != nil {
		return nil
	}
	var pages []struct {
		URL    string
		Socket string `json:"webSocketDebuggerUrl"`
	}
	if json.Unmarshal([]byte(list), &pages) != nil {
		return nil
	}
	for _, p := range pages {
		if p.URL == url {
			if conn, err := websocket.Dial(p.Socket, "", "http://127.0.0.1"); err == nil {
				return conn
			}
		}
	}
	return nil
}

// do sends a command and decodes its result.
func (b *browser) do(result any, method string, params map[string]any) {
	b.t.Helper()
	b.last++
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	deadline, _ := ctx.Deadline()
	err := b.conn.SetDeadline(deadline)
	if err == nil {
		err = websocket.JSON.Send(b.conn, map[string]any{"id": b.last, "method": method, "params": params})
	}
	for err == nil {
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  json.RawMessage
		}
		if err = websocket.JSON.Receive(b.conn, &answer); err == nil && answer.ID == b.last {
			if answer.Error != nil {
				b.t.Fatalf("%s: %s", method, answer.Error)
			}
			err = json.Unmarshal(answer.Result, result)
			break
		}
	}
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

// html is the page as it is now.
func (b *browser) html() string {
	b.t.Helper()
	var r struct {
		Result struct{ Value string }
	}
	b.do(&r, "Runtime.evaluate", map[string]any{"expression": "document.documentElement.outerHTML", "returnByValue": true})
	return r.Result.Value
}

// picture writes what is seen to a file.
func (b *browser) picture(path string) {
	b.t.Helper()
	var r struct{ Data string }
	b.do(&r, "Page.captureScreenshot", map[string]any{"format": "png"})
	data, err := base64.StdEncoding.DecodeString(r.Data)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
