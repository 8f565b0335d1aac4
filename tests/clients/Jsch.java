// Log in with JSch through a ProxyCommand: run a command, copy a file there and back.
// Usage: java Jsch.java KNOWN_HOSTS PROGRAM [ARGUMENT...]
import com.jcraft.jsch.ChannelExec;
import com.jcraft.jsch.ChannelSftp;
import com.jcraft.jsch.JSch;
import com.jcraft.jsch.Proxy;
import com.jcraft.jsch.Session;
import com.jcraft.jsch.SocketFactory;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.ProcessBuilder.Redirect;
import java.net.Socket;
import java.util.Arrays;

public class Jsch {
    static class Command implements Proxy {
        private final String[] words;
        private Process process;

        Command(String[] words) { this.words = words; }

        public void connect(SocketFactory factory, String host, int port, int timeout) throws Exception {
            process = new ProcessBuilder(words).redirectError(Redirect.INHERIT).start();
        }

        public InputStream getInputStream() { return process.getInputStream(); }

        public OutputStream getOutputStream() { return process.getOutputStream(); }

        public Socket getSocket() { return null; }

        public void close() {
            try {
                process.getOutputStream().close();
                process.waitFor();
            } catch (Exception error) {
                process.destroy();
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        JSch jsch = new JSch();
        jsch.setKnownHosts(arguments[0]);
        Session session = jsch.getSession("anybody", "dm-foo", 22);
        session.setConfig("StrictHostKeyChecking", "yes");
        session.setProxy(new Command(Arrays.copyOfRange(arguments, 1, arguments.length)));
        session.connect(60000);
        ChannelExec command = (ChannelExec) session.openChannel("exec");
        command.setCommand("cat; exit 3");
        command.setInputStream(new ByteArrayInputStream("through\n".getBytes()));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        command.setOutputStream(out);
        command.connect();
        while (!command.isClosed()) Thread.sleep(20);
        System.out.print(out + "status " + command.getExitStatus() + "\n");
        ChannelSftp sftp = (ChannelSftp) session.openChannel("sftp");
        sftp.connect();
        byte[] data = new byte[1000000];
        Arrays.fill(data, (byte) 'x');
        sftp.put(new ByteArrayInputStream(data), "copy");
        System.out.print("copied " + Arrays.equals(data, sftp.get("copy").readAllBytes()) + "\n");
        session.disconnect();
    }
}
