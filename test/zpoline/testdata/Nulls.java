// Often enough that the code is compiled, and finds null pointers by their fault.
public class Nulls {
    int field = 1;

    static int sum(Nulls n) {
        try {
            return n.field;
        } catch (NullPointerException e) {
            return 1000;
        }
    }

    public static void main(String[] args) throws Exception {
        int sum = 0;
        for (int i = 0; i < 100000; i++) {
            sum += sum(i % 2 == 0 ? null : new Nulls());
        }
        Thread[] threads = new Thread[20];
        for (int i = 0; i < threads.length; i++) {
            threads[i] = new Thread(() -> {
                try {
                    new java.net.ServerSocket(0).close();
                } catch (java.io.IOException e) {
                    System.out.println(e);
                }
            });
            threads[i].start();
        }
        for (Thread t : threads) {
            t.join();
        }
        int status = new ProcessBuilder("/bin/true").start().waitFor();
        System.out.println(sum == 50000 * 1001 && status == 0 ? "ok" : "sum " + sum + ", status " + status);
    }
}
