import java.io.*;
import java.net.*;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;

/**
 * java.net: "server PORT" answers each connection, read to its end, with the
 * SHA-256; "client PORT" has 30 threads send 1 MiB each, shut their output
 * down and read the answer. Java opens IPv6 sockets for IPv4 too.
 */
public class Sockets {
    static String sum(InputStream in) throws Exception {
        MessageDigest hash = MessageDigest.getInstance("SHA-256");
        byte[] buf = new byte[65536];
        for (int n; (n = in.read(buf)) > 0; ) hash.update(buf, 0, n);
        return HexFormat.of().formatHex(hash.digest());
    }

    static void answer(Socket conn) {
        try (conn) {
            String line = sum(conn.getInputStream()) + " " + conn.getPort() + "\n";
            conn.getOutputStream().write(line.getBytes());
        } catch (Exception e) {
            e.printStackTrace();
        }
    }

    static String talk(int port, int who) throws Exception {
        byte[] data = new byte[1 << 20];
        new Random(who).nextBytes(data);
        try (Socket conn = new Socket()) {
            conn.setSoTimeout(30000);
            conn.setTcpNoDelay(true);
            conn.connect(new InetSocketAddress("127.0.0.1", port), 10000);
            conn.getOutputStream().write(data);
            conn.shutdownOutput();
            String got = new BufferedReader(new InputStreamReader(conn.getInputStream())).readLine();
            String want = sum(new ByteArrayInputStream(data)) + " " + conn.getLocalPort();
            if (!want.equals(got)) throw new IOException("got " + got + ", want " + want);
            return got;
        }
    }

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[1]);
        ExecutorService pool = Executors.newFixedThreadPool(30);
        if (args[0].equals("server")) {
            try (ServerSocket listener = new ServerSocket(port, 50, InetAddress.getByName("127.0.0.1"))) {
                System.out.println("listening");
                while (true) {
                    Socket conn = listener.accept();
                    pool.execute(() -> answer(conn));
                }
            }
        }
        List<Future<String>> all = new ArrayList<>();
        for (int i = 0; i < 30; i++) {
            int who = i;
            all.add(pool.submit(() -> talk(port, who)));
        }
        Set<String> answers = new HashSet<>();
        for (Future<String> f : all) answers.add(f.get());
        pool.shutdown();
        System.out.println(answers.size() + " answers right");
    }
}
