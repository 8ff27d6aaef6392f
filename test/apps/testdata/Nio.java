import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.util.*;

/**
 * java.nio: "server PORT" echoes from one selector; "client PORT" drives 50
 * connections of 200 kB each from one selector, registered before they are
 * connected.
 */
public class Nio {
    static final int SIZE = 200_000, CONNS = 50;

    /** One conversation of the client. */
    static class Talk {
        final byte[] data = new byte[SIZE];
        final ByteBuffer out = ByteBuffer.wrap(data);
        final ByteBuffer in = ByteBuffer.allocate(SIZE + 1);

        Talk(int who) { new Random(who).nextBytes(data); }
    }

    static void serve(int port) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.configureBlocking(false);
        listener.bind(new InetSocketAddress("127.0.0.1", port), 100);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        System.out.println("listening");
        while (true) {
            selector.select();
            for (Iterator<SelectionKey> it = selector.selectedKeys().iterator(); it.hasNext(); ) {
                SelectionKey key = it.next();
                it.remove();
                if (key.isAcceptable()) {
                    for (SocketChannel conn; (conn = listener.accept()) != null; ) {
                        conn.configureBlocking(false);
                        conn.register(selector, SelectionKey.OP_READ, ByteBuffer.allocate(65536));
                    }
                } else {
                    echo(key);
                }
            }
        }
    }

    static void echo(SelectionKey key) throws IOException {
        SocketChannel conn = (SocketChannel) key.channel();
        ByteBuffer buf = (ByteBuffer) key.attachment();
        if (key.isReadable() && conn.read(buf) < 0) {
            conn.close();
            return;
        }
        buf.flip();
        conn.write(buf);
        int ops = (buf.remaining() > 0 ? SelectionKey.OP_WRITE : 0);
        buf.compact();
        if (buf.hasRemaining()) ops |= SelectionKey.OP_READ;
        key.interestOps(ops);
    }

    static void talk(int port) throws IOException {
        Selector selector = Selector.open();
        for (int i = 0; i < CONNS; i++) {
            SocketChannel conn = SocketChannel.open();
            conn.configureBlocking(false);
            conn.register(selector, SelectionKey.OP_CONNECT, new Talk(i));
            if (conn.connect(new InetSocketAddress("127.0.0.1", port)))
                conn.keyFor(selector).interestOps(SelectionKey.OP_READ | SelectionKey.OP_WRITE);
        }
        int done = 0;
        while (done < CONNS) {
            if (selector.select(30000) == 0) throw new IOException("nothing ready for 30 s, " + done + " done");
            for (Iterator<SelectionKey> it = selector.selectedKeys().iterator(); it.hasNext(); ) {
                SelectionKey key = it.next();
                it.remove();
                SocketChannel conn = (SocketChannel) key.channel();
                Talk talk = (Talk) key.attachment();
                if (key.isConnectable()) {
                    conn.finishConnect();
                    key.interestOps(SelectionKey.OP_READ | SelectionKey.OP_WRITE);
                }
                if (key.isValid() && key.isWritable()) {
                    conn.write(talk.out);
                    if (!talk.out.hasRemaining()) key.interestOps(SelectionKey.OP_READ);
                }
                if (key.isReadable()) {
                    if (conn.read(talk.in) < 0) throw new IOException("ended early");
                    if (talk.in.position() >= SIZE) {
                        if (!Arrays.equals(talk.data, Arrays.copyOf(talk.in.array(), SIZE))) throw new IOException("wrong bytes");
                        conn.close();
                        done++;
                    }
                }
            }
        }
        System.out.println(done + " conversations right");
    }

    public static void main(String[] args) throws IOException {
        int port = Integer.parseInt(args[1]);
        if (args[0].equals("server")) serve(port);
        else talk(port);
    }
}
