// Go's x/crypto/ssh (Teleport's engine) as an SSH server that runs commands: PORT HOST_KEY AUTHORIZED_KEYS.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"

	"golang.org/x/crypto/ssh"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func shell() string {
	if found := os.Getenv("SHELL"); found != "" {
		return found
	}
	return "/bin/sh"
}

func session(channel ssh.Channel, requests <-chan *ssh.Request) {
	for request := range requests {
		command := ""
		switch request.Type {
		case "exec":
			var payload struct{ Command string }
			must(ssh.Unmarshal(request.Payload, &payload))
			command = payload.Command
		case "shell":
			command = "exec cat"
		case "pty-req":
			request.Reply(true, nil)
			continue
		default:
			request.Reply(false, nil)
			continue
		}
		request.Reply(true, nil)
		child := exec.Command(shell(), "-c", command)
		stdin, err := child.StdinPipe()
		must(err)
		child.Stdout, child.Stderr = channel, channel.Stderr()
		must(child.Start())
		go func() {
			io.Copy(stdin, channel)
			stdin.Close()
		}()
		go func() {
			child.Wait()
			channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(child.ProcessState.ExitCode())}))
			channel.Close()
		}()
	}
}

func forward(opened ssh.NewChannel) {
	var target struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	must(ssh.Unmarshal(opened.ExtraData(), &target))
	socket, err := net.Dial("tcp", fmt.Sprintf("%s:%d", target.Host, target.Port))
	if err != nil {
		opened.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := opened.Accept()
	must(err)
	go ssh.DiscardRequests(requests)
	go func() {
		io.Copy(channel, socket)
		channel.CloseWrite()
	}()
	io.Copy(socket, channel)
	socket.Close()
	channel.Close()
}

func serve(socket net.Conn, config *ssh.ServerConfig) {
	connection, channels, requests, err := ssh.NewServerConn(socket, config)
	if err != nil {
		return
	}
	defer connection.Close()
	go ssh.DiscardRequests(requests)
	for opened := range channels {
		switch opened.ChannelType() {
		case "session":
			channel, requests, err := opened.Accept()
			if err == nil {
				go session(channel, requests)
			}
		case "direct-tcpip":
			go forward(opened)
		default:
			opened.Reject(ssh.UnknownChannelType, "unknown")
		}
	}
}

func main() {
	text, err := os.ReadFile(os.Args[2])
	must(err)
	signer, err := ssh.ParsePrivateKey(text)
	must(err)
	text, err = os.ReadFile(os.Args[3])
	must(err)
	known, _, _, _, err := ssh.ParseAuthorizedKey(text)
	must(err)
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if bytes.Equal(key.Marshal(), known.Marshal()) {
			return nil, nil
		}
		return nil, fmt.Errorf("unknown key")
	}}
	config.AddHostKey(signer)
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	must(err)
	for {
		socket, err := listener.Accept()
		must(err)
		go serve(socket, config)
	}
}
